//! Calls that count against daily allowances.

use std::collections::BTreeMap;

use chrono::NaiveDate;
use protocol::ids::UserId;
use protocol::principal::Bucket;
use sqlx::PgExecutor;
use uuid::Uuid;

/// Adds calls.
///
/// # Errors
/// When Postgres is away.
pub async fn add(db: impl PgExecutor<'_>, calls: &BTreeMap<(UserId, NaiveDate, Bucket), i64>) -> sqlx::Result<()> {
    if calls.is_empty() {
        return Ok(());
    }
    let users: Vec<Uuid> = calls.keys().map(|(user, ..)| user.0).collect();
    let days: Vec<NaiveDate> = calls.keys().map(|(_, day, _)| *day).collect();
    let buckets: Vec<String> = calls.keys().map(|(.., bucket)| bucket.to_string()).collect();
    let counts: Vec<i64> = calls.values().copied().collect();
    sqlx::query!(
        "insert into quota_usage as held (user_id, day, bucket, calls)
        select * from unnest($1::uuid[], $2::date[], $3::text[], $4::bigint[])
        on conflict on constraint quota_usage_pkey do update set calls = held.calls + excluded.calls",
        &users,
        &days,
        &buckets,
        &counts,
    )
    .execute(db)
    .await
    .map(drop)
}
