//! How far each record log is in Postgres.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use protocol::ids::WriterId;
use protocol::record::hours;
use protocol::record::ledger::LogWriter;
use sqlx::{PgConnection, PgExecutor};
use uuid::Uuid;

/// Locks the rows of writers until the transaction ends, always in the same order; new ones begin at `first_heard`.
///
/// # Errors
/// When Postgres is away.
pub async fn lock(
    db: &mut PgConnection,
    writers: &[WriterId],
    first_heard: DateTime<Utc>,
    now: DateTime<Utc>,
) -> sqlx::Result<BTreeMap<WriterId, LogWriter>> {
    let ids: Vec<Uuid> = writers.iter().map(|writer| writer.0).collect();
    sqlx::query!(
        "insert into log_writers (writer_id, mark, clock, closed, first_seen, last_seen)
        select writer_id, 0, $2, false, $3, $3 from unnest($1::uuid[]) as asked (writer_id) order by writer_id
        on conflict do nothing",
        &ids,
        first_heard,
        now,
    )
    .execute(&mut *db)
    .await?;
    let rows = sqlx::query!(
        "select writer_id, mark, clock, closed from log_writers
        where writer_id = any($1) order by writer_id for update",
        &ids
    )
    .fetch_all(db)
    .await?;
    rows.into_iter()
        .map(|row| {
            let held = LogWriter { mark: unsigned(row.mark)?, clock: row.clock, closed: row.closed };
            Ok((WriterId(row.writer_id), held))
        })
        .collect()
}

/// Writes what is known of locked writers.
///
/// # Errors
/// When Postgres is away.
pub async fn update(
    db: impl PgExecutor<'_>,
    writers: &BTreeMap<WriterId, LogWriter>,
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    let ids: Vec<Uuid> = writers.keys().map(|writer| writer.0).collect();
    let marks: Vec<i64> = writers.values().map(|held| held.mark.cast_signed()).collect();
    let clocks: Vec<DateTime<Utc>> = writers.values().map(|held| held.clock).collect();
    let closed: Vec<bool> = writers.values().map(|held| held.closed).collect();
    sqlx::query!(
        "update log_writers set mark = heard.mark, clock = heard.clock, closed = heard.closed, last_seen = $5
        from unnest($1::uuid[], $2::bigint[], $3::timestamptz[], $4::boolean[]) as heard (writer_id, mark, clock, closed)
        where log_writers.writer_id = heard.writer_id",
        &ids,
        &marks,
        &clocks,
        &closed,
        now,
    )
    .execute(db)
    .await
    .map(drop)
}

/// The marks of all writers heard of since then.
///
/// # Errors
/// When Postgres is away.
pub async fn list_marks(db: impl PgExecutor<'_>, since: DateTime<Utc>) -> sqlx::Result<Vec<(WriterId, u64)>> {
    let rows = sqlx::query!("select writer_id, mark from log_writers where last_seen > $1 order by writer_id", since)
        .fetch_all(db)
        .await?;
    rows.into_iter().map(|row| Ok((WriterId(row.writer_id), unsigned(row.mark)?))).collect()
}

/// What decides whether an hour may close.
///
/// # Errors
/// When Postgres is away.
pub async fn list_open(db: impl PgExecutor<'_>) -> sqlx::Result<Vec<hours::Writer>> {
    sqlx::query_as!(hours::Writer, "select clock, closed from log_writers where not closed").fetch_all(db).await
}

fn unsigned(mark: i64) -> sqlx::Result<u64> {
    u64::try_from(mark).map_err(|error| sqlx::Error::Decode(error.into()))
}
