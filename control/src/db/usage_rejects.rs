//! Usage entries that nobody could read, kept for whoever looks.

use chrono::{DateTime, Utc};
use protocol::record::batch::Reject;
use sqlx::PgExecutor;
use uuid::Uuid;

/// Keeps entries, each text once, and says how many are new.
///
/// # Errors
/// When Postgres is away.
pub async fn insert(db: impl PgExecutor<'_>, rejects: &[Reject], now: DateTime<Utc>) -> sqlx::Result<u64> {
    let hashes: Vec<Vec<u8>> = rejects.iter().map(|reject| reject.hash.to_vec()).collect();
    let ids: Vec<String> = rejects.iter().map(|reject| reject.id.clone()).collect();
    let writers: Vec<Option<Uuid>> = rejects.iter().map(|reject| reject.writer.map(|writer| writer.0)).collect();
    let sequences: Vec<Option<i64>> = rejects.iter().map(|reject| reject.sequence.map(u64::cast_signed)).collect();
    let reasons: Vec<String> = rejects.iter().map(|reject| reject.reason.clone()).collect();
    let raws: Vec<Vec<u8>> = rejects.iter().map(|reject| reject.raw.clone()).collect();
    let inserted = sqlx::query!(
        "insert into usage_rejects (content_hash, entry_id, writer_id, sequence, reason, raw, received_at)
        select *, $7::timestamptz
        from unnest($1::bytea[], $2::text[], $3::uuid[], $4::bigint[], $5::text[], $6::bytea[])
        on conflict do nothing",
        &hashes,
        &ids,
        &writers as &[Option<Uuid>],
        &sequences as &[Option<i64>],
        &reasons,
        &raws,
        now,
    )
    .execute(db)
    .await?;
    Ok(inserted.rows_affected())
}
