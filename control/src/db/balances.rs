//! What users have, and with what they have used what gateways know of it.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use protocol::ids::{UserId, WriterId};
use protocol::principal::{Bucket, FundsEntry, Versioned};
use sqlx::types::Json;
use sqlx::{PgConnection, PgExecutor};
use uuid::Uuid;

use super::outbox::{self, Change};
use super::stored;
use crate::domain::money::Amount;

/// How long the mark of a silent writer is told.
const REMEMBERED: TimeDelta = TimeDelta::days(7);

/// Gives a new user an empty balance.
///
/// # Errors
/// When Postgres is away.
pub async fn open(db: impl PgExecutor<'_>, user: UserId) -> sqlx::Result<()> {
    sqlx::query!("insert into balances (user_id) values ($1)", user.0).execute(db).await.map(drop)
}

/// Sets a balance.
///
/// # Errors
/// When Postgres is away.
pub async fn set(db: impl PgExecutor<'_>, user: UserId, balance: Amount) -> sqlx::Result<()> {
    sqlx::query!(
        "update balances set balance = $2::text::numeric, version = version + 1 where user_id = $1",
        user.0,
        balance.pico().to_string(),
    )
    .execute(db)
    .await
    .map(drop)
}

/// Makes the funds of users count as changed, locks them until the transaction ends and has them published.
///
/// # Errors
/// When Postgres is away.
pub async fn touch(db: &mut PgConnection, users: &[UserId]) -> sqlx::Result<()> {
    let ids: Vec<Uuid> = users.iter().map(|user| user.0).collect();
    // Locked in order, so that two writers never wait for each other.
    let touched = sqlx::query_scalar!(
        "update balances set version = version + 1 where user_id in (
            select user_id from balances where user_id = any($1) order by user_id for update
        ) returning user_id",
        &ids,
    )
    .fetch_all(&mut *db)
    .await?;
    let changes: Vec<Change> = touched.into_iter().map(|user| Change::Funds(UserId(user))).collect();
    outbox::record(db, &changes).await
}

/// Lifts the version above a newer one that was published; `false` when the row is not older.
///
/// # Errors
/// When Postgres is away.
pub async fn raise(db: impl PgExecutor<'_>, user: UserId, published: u64) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "update balances set version = $2 + 1 where user_id = $1 and version < $2",
        user.0,
        stored(i64::try_from(published))?,
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// What gateways know of a user's funds today, from one state of the database.
///
/// # Errors
/// When Postgres is away.
pub async fn entry(
    db: impl PgExecutor<'_>,
    user: UserId,
    now: DateTime<Utc>,
) -> sqlx::Result<Option<Versioned<FundsEntry>>> {
    let day = now.date_naive();
    let row = sqlx::query!(
        r#"select balance::text as "balance!", version,
            coalesce((
                select jsonb_object_agg(bucket, calls) from quota_usage where quota_usage.user_id = $1 and day = $2
            ), '{}') as "used!: Json<BTreeMap<Bucket, u64>>",
            coalesce((select jsonb_object_agg(writer_id, mark) from log_writers where last_seen > $3), '{}')
            as "marks!: Json<BTreeMap<WriterId, u64>>"
        from balances where user_id = $1"#,
        user.0,
        day,
        now - REMEMBERED,
    )
    .fetch_optional(db)
    .await?;
    row.map(|row| {
        let entry = FundsEntry { balance: stored(row.balance.parse())?, day, used: row.used.0, marks: row.marks.0 };
        Ok(Versioned { version: stored(row.version.try_into())?, entry })
    })
    .transpose()
}
