//! Calls per day that cost a user nothing.

use protocol::ids::UserId;
use protocol::principal::Bucket;
use sqlx::PgExecutor;

use super::stored;

/// Sets an allowance.
///
/// # Errors
/// When Postgres is away.
pub async fn set(db: impl PgExecutor<'_>, user: UserId, bucket: Bucket, calls: u64) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into quotas (user_id, bucket, calls) values ($1, $2, $3)
        on conflict on constraint quotas_pkey do update set calls = excluded.calls",
        user.0,
        bucket.to_string(),
        stored(i64::try_from(calls))?,
    )
    .execute(db)
    .await
    .map(drop)
}
