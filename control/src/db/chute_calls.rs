//! How often each chute was called.

use std::collections::BTreeMap;

use protocol::ids::ChuteId;
use sqlx::PgExecutor;
use uuid::Uuid;

use super::stored;

/// Adds paid attempts.
///
/// # Errors
/// When Postgres is away.
pub async fn add(db: impl PgExecutor<'_>, calls: &BTreeMap<ChuteId, i64>) -> sqlx::Result<()> {
    if calls.is_empty() {
        return Ok(());
    }
    let (chutes, counts): (Vec<Uuid>, Vec<i64>) = calls.iter().map(|(chute, count)| (chute.0, *count)).unzip();
    sqlx::query!(
        "insert into chute_calls as held (chute_id, calls) select * from unnest($1::uuid[], $2::bigint[])
        on conflict on constraint chute_calls_pkey do update set calls = held.calls + excluded.calls",
        &chutes,
        &counts,
    )
    .execute(db)
    .await
    .map(drop)
}

/// Calls of all chutes that had any.
///
/// # Errors
/// When Postgres is away.
pub async fn all(db: impl PgExecutor<'_>) -> sqlx::Result<BTreeMap<ChuteId, u64>> {
    let rows = sqlx::query!("select chute_id, calls from chute_calls").fetch_all(db).await?;
    rows.into_iter().map(|row| Ok((ChuteId(row.chute_id), stored(row.calls.try_into())?))).collect()
}
