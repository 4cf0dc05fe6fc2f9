//! Accounts.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use protocol::ids::UserId;
use protocol::principal::{Bucket, UserEntry, Versioned};
use sqlx::PgExecutor;
use sqlx::types::Json;
use uuid::Uuid;

use super::stored;
use crate::domain::fingerprint::FingerprintHash;
use crate::domain::quota;

/// An account.
#[derive(Clone, Debug, PartialEq)]
pub struct User {
    /// Its identifier, made from the hash of its first fingerprint.
    pub id: UserId,
    /// Its name.
    pub username: String,
    /// Generation of its sessions.
    pub generation: u32,
    /// Permission bits.
    pub permissions: u64,
    /// Calls per minute, instead of the default.
    pub rate_per_minute: Option<u32>,
    /// Calls at once, instead of the default.
    pub max_concurrent: Option<u32>,
    /// Grows with each change.
    pub version: u64,
    /// Whether it was deleted.
    pub deleted: bool,
}

/// A row of the table.
struct Row {
    user_id: Uuid,
    username: String,
    generation: i32,
    permissions: i64,
    rate_per_minute: Option<i32>,
    max_concurrent: Option<i32>,
    version: i64,
    deleted_at: Option<DateTime<Utc>>,
}

impl TryFrom<Row> for User {
    type Error = sqlx::Error;

    fn try_from(row: Row) -> sqlx::Result<Self> {
        Ok(Self {
            id: UserId(row.user_id),
            username: row.username,
            generation: stored(row.generation.try_into())?,
            permissions: stored(row.permissions.try_into())?,
            rate_per_minute: stored(row.rate_per_minute.map(u32::try_from).transpose())?,
            max_concurrent: stored(row.max_concurrent.map(u32::try_from).transpose())?,
            version: stored(row.version.try_into())?,
            deleted: row.deleted_at.is_some(),
        })
    }
}

/// Adds an account.
///
/// # Errors
/// When the name is taken or breaks its rule, or Postgres is away.
pub async fn insert(
    db: impl PgExecutor<'_>,
    id: UserId,
    username: &str,
    fingerprint: &FingerprintHash,
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into users (user_id, username, fingerprint_hash, created_at) values ($1, $2, $3, $4)",
        id.0,
        username,
        fingerprint.to_string(),
        now,
    )
    .execute(db)
    .await
    .map(drop)
}

/// The account with this identifier, deleted or not.
///
/// # Errors
/// When Postgres is away.
pub async fn find(db: impl PgExecutor<'_>, id: UserId) -> sqlx::Result<Option<User>> {
    let row = sqlx::query_as!(
        Row,
        "select user_id, username, generation, permissions, rate_per_minute, max_concurrent, version, deleted_at
        from users where user_id = $1",
        id.0,
    )
    .fetch_optional(db)
    .await?;
    row.map(User::try_from).transpose()
}

/// The account with this name, deleted or not.
///
/// # Errors
/// When Postgres is away.
pub async fn find_by_name(db: impl PgExecutor<'_>, username: &str) -> sqlx::Result<Option<User>> {
    let row = sqlx::query_as!(
        Row,
        "select user_id, username, generation, permissions, rate_per_minute, max_concurrent, version, deleted_at
        from users where lower(username) = lower($1)",
        username,
    )
    .fetch_optional(db)
    .await?;
    row.map(User::try_from).transpose()
}

/// Identifiers of the accounts with these names, ordered.
///
/// # Errors
/// When Postgres is away.
pub async fn ids_of_names(db: impl PgExecutor<'_>, usernames: &[String]) -> sqlx::Result<Vec<UserId>> {
    let ids = sqlx::query_scalar!(
        "select user_id from users where username = any($1) and deleted_at is null order by user_id",
        usernames,
    )
    .fetch_all(db)
    .await?;
    Ok(ids.into_iter().map(UserId).collect())
}

/// The next accounts by identifier, deleted ones included.
///
/// # Errors
/// When Postgres is away.
pub async fn list_ids(db: impl PgExecutor<'_>, after: UserId, limit: i64) -> sqlx::Result<Vec<UserId>> {
    let ids =
        sqlx::query_scalar!("select user_id from users where user_id > $1 order by user_id limit $2", after.0, limit)
            .fetch_all(db)
            .await?;
    Ok(ids.into_iter().map(UserId).collect())
}

/// Number of accounts, deleted ones included.
///
/// # Errors
/// When Postgres is away.
pub async fn count(db: impl PgExecutor<'_>) -> sqlx::Result<u64> {
    let count = sqlx::query_scalar!(r#"select count(*) as "count!" from users"#).fetch_one(db).await?;
    stored(count.try_into())
}

/// Stores permissions and limits.
///
/// # Errors
/// When a number breaks its rule or Postgres is away.
pub async fn update_limits(db: impl PgExecutor<'_>, user: &User) -> sqlx::Result<()> {
    sqlx::query!(
        "update users set permissions = $2, rate_per_minute = $3, max_concurrent = $4, version = version + 1
        where user_id = $1",
        user.id.0,
        stored(i64::try_from(user.permissions))?,
        stored(user.rate_per_minute.map(i32::try_from).transpose())?,
        stored(user.max_concurrent.map(i32::try_from).transpose())?,
    )
    .execute(db)
    .await
    .map(drop)
}

/// Makes the account count as changed, and locks it until the transaction ends.
///
/// # Errors
/// When Postgres is away.
pub async fn touch(db: impl PgExecutor<'_>, id: UserId) -> sqlx::Result<()> {
    sqlx::query!("update users set version = version + 1 where user_id = $1", id.0).execute(db).await.map(drop)
}

/// Ends all sessions and gives the new generation.
///
/// # Errors
/// When Postgres is away.
pub async fn end_sessions(db: impl PgExecutor<'_>, id: UserId) -> sqlx::Result<u32> {
    let generation = sqlx::query_scalar!(
        "update users set generation = generation + 1, version = version + 1 where user_id = $1 returning generation",
        id.0,
    )
    .fetch_one(db)
    .await?;
    stored(generation.try_into())
}

/// Marks an account as deleted.
///
/// # Errors
/// When Postgres is away.
pub async fn delete(db: impl PgExecutor<'_>, id: UserId, now: DateTime<Utc>) -> sqlx::Result<()> {
    sqlx::query!(
        "update users set deleted_at = $2, generation = generation + 1, version = version + 1 where user_id = $1",
        id.0,
        now,
    )
    .execute(db)
    .await
    .map(drop)
}

/// Lifts the version above a newer one that was published; `false` when the row is not older.
///
/// # Errors
/// When Postgres is away.
pub async fn raise(db: impl PgExecutor<'_>, id: UserId, published: u64) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "update users set version = $2 + 1 where user_id = $1 and version < $2",
        id.0,
        stored(i64::try_from(published))?,
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// What gateways know of an account.
///
/// # Errors
/// When Postgres is away.
pub async fn entry(db: impl PgExecutor<'_>, id: UserId) -> sqlx::Result<Option<Versioned<UserEntry>>> {
    let row = sqlx::query!(
        r#"select username, generation, permissions, rate_per_minute, max_concurrent, version, deleted_at,
            coalesce((select jsonb_object_agg(bucket, calls) from quotas where quotas.user_id = users.user_id), '{}')
            as "quotas!: Json<BTreeMap<Bucket, u64>>"
        from users where user_id = $1"#,
        id.0,
    )
    .fetch_optional(db)
    .await?;
    row.map(|row| {
        let entry = UserEntry {
            id,
            username: row.username,
            generation: stored(row.generation.try_into())?,
            permissions: stored(row.permissions.try_into())?,
            rate_per_minute: stored(row.rate_per_minute.map(u32::try_from).transpose())?,
            max_concurrent: stored(row.max_concurrent.map(u32::try_from).transpose())?,
            quotas: quota::allowances(row.quotas.0),
            deleted: row.deleted_at.is_some(),
        };
        Ok(Versioned { version: stored(row.version.try_into())?, entry })
    })
    .transpose()
}
