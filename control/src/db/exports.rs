//! Which hours are closed and which of their files lie in the object store.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgExecutor};

use crate::domain::export_hour::{ExportHour, ExportKind};

/// Advisory lock under which rows get their hour (shared) and hours are closed (exclusive).
const FRONTIER_LOCK: i64 = 0x6578_706f_7274_0001;
/// Advisory lock under which files are written.
const FILE_LOCK: i64 = 0x6578_706f_7274_0002;

/// Keeps hours from closing until the transaction ends and says which one is the oldest open.
///
/// # Errors
/// When Postgres is away.
pub async fn hold_frontier(db: &mut PgConnection) -> sqlx::Result<Option<ExportHour>> {
    sqlx::query!("select pg_advisory_xact_lock_shared($1)", FRONTIER_LOCK).execute(&mut *db).await?;
    oldest_open(db).await
}

/// Opens the first hour of the platform; nothing happens when it has one.
///
/// # Errors
/// When Postgres is away.
pub async fn open_first(db: &mut PgConnection, hour: ExportHour) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into export_hours (hour) select $1::timestamptz where not exists (select from export_hours)
        on conflict do nothing",
        hour.end()
    )
    .execute(db)
    .await
    .map(drop)
}

/// Keeps rows from getting their hour until the transaction ends and says which one is the oldest open.
///
/// # Errors
/// When Postgres is away.
pub async fn lock_frontier(db: &mut PgConnection) -> sqlx::Result<Option<ExportHour>> {
    sqlx::query!("select pg_advisory_xact_lock($1)", FRONTIER_LOCK).execute(&mut *db).await?;
    oldest_open(db).await
}

/// Closes the open hour, under the lock of the frontier, and opens the next.
///
/// # Errors
/// When Postgres is away.
pub async fn close(db: &mut PgConnection, hour: ExportHour, now: DateTime<Utc>) -> sqlx::Result<()> {
    sqlx::query!("update export_hours set closed_at = $2 where hour = $1 and closed_at is null", hour.end(), now)
        .execute(&mut *db)
        .await?;
    sqlx::query!("insert into export_hours (hour) values ($1)", hour.next().end()).execute(db).await.map(drop)
}

/// Takes the right to write files until the transaction ends; the transaction may idle while a file travels.
///
/// # Errors
/// When Postgres is away.
pub async fn lock_files(db: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::query!("set local statement_timeout = '15min\'").execute(&mut *db).await?;
    sqlx::query!("set local idle_in_transaction_session_timeout = '15min\'").execute(&mut *db).await?;
    sqlx::query!("set local lock_timeout = '15min\'").execute(&mut *db).await?;
    sqlx::query!("select pg_advisory_xact_lock($1)", FILE_LOCK).execute(db).await.map(drop)
}

/// Files of closed hours that are not written, oldest first.
///
/// # Errors
/// When Postgres is away.
pub async fn list_missing(db: impl PgExecutor<'_>) -> sqlx::Result<Vec<(ExportHour, ExportKind)>> {
    let kinds = ExportKind::ALL.map(|kind| kind.name().to_owned());
    let rows = sqlx::query!(
        r#"select hour as "hour!", kind as "kind!" from export_hours cross join unnest($1::text[]) as kinds (kind)
        where closed_at is not null and not exists (
            select from exports where exports.hour = export_hours.hour and exports.kind = kinds.kind
        ) order by hour, kind limit 1000"#,
        &kinds,
    )
    .fetch_all(db)
    .await?;
    let known = |name: &str| ExportKind::ALL.into_iter().find(|kind| kind.name() == name);
    let missing = rows.into_iter().map(|row| Some((ExportHour::ending(row.hour)?, known(&row.kind)?)));
    missing.collect::<Option<_>>().ok_or_else(|| sqlx::Error::Decode("an export hour that is not whole".into()))
}

/// Says that a file lies in the object store.
///
/// # Errors
/// When Postgres is away or another process has said so before.
pub async fn insert(
    db: impl PgExecutor<'_>,
    hour: ExportHour,
    kind: ExportKind,
    sha256: &str,
    rows: i64,
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into exports (hour, kind, sha256, rows, written_at) values ($1, $2, $3, $4, $5)",
        hour.end(),
        kind.name(),
        sha256,
        rows,
        now,
    )
    .execute(db)
    .await
    .map(drop)
}

/// The SHA-256 of a written file, in hex.
///
/// # Errors
/// When Postgres is away.
pub async fn find_sha256(db: impl PgExecutor<'_>, hour: ExportHour, kind: ExportKind) -> sqlx::Result<Option<String>> {
    sqlx::query_scalar!("select sha256 from exports where hour = $1 and kind = $2", hour.end(), kind.name())
        .fetch_optional(db)
        .await
}

async fn oldest_open(db: &mut PgConnection) -> sqlx::Result<Option<ExportHour>> {
    let hour = sqlx::query_scalar!("select hour from export_hours where closed_at is null").fetch_optional(db).await?;
    Ok(hour.and_then(ExportHour::ending))
}
