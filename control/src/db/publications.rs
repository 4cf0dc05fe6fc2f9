//! What was published last, and whether the operator insists on it.

use chrono::{DateTime, Utc};
use sqlx::PgExecutor;

use super::stored;

/// The duty that publishes the directory, and its channel.
pub const DIRECTORY_PUBLISHER: &str = "publish_directory";

/// Something that is published as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Publication {
    /// The directory snapshot.
    Directory,
    /// The statement that all principals are in Redis.
    Principals,
}

impl Publication {
    fn name(self) -> &'static str {
        match self {
            Self::Directory => "directory",
            Self::Principals => "principals",
        }
    }
}

/// Its state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Version published last.
    pub version: u64,
    /// Until when the operator insists on what is published.
    pub forced_until: Option<DateTime<Utc>>,
    /// The run of Redis that has everything.
    pub redis_run: Option<String>,
}

impl State {
    /// Whether the operator insists now.
    #[must_use]
    pub fn forced(&self, now: DateTime<Utc>) -> bool {
        self.forced_until.is_some_and(|until| now < until)
    }
}

/// Lets one publisher at a time go on, so that a higher version is never made from an older state.
///
/// # Errors
/// When Postgres is away.
pub async fn lock(db: impl PgExecutor<'_>, publication: Publication) -> sqlx::Result<()> {
    sqlx::query!("select pg_advisory_xact_lock(hashtextextended($1, 1))", publication.name())
        .execute(db)
        .await
        .map(drop)
}

/// Its state.
///
/// # Errors
/// When Postgres is away.
pub async fn get(db: impl PgExecutor<'_>, publication: Publication) -> sqlx::Result<State> {
    let row =
        sqlx::query!("select version, forced_until, redis_run from publications where name = $1", publication.name())
            .fetch_one(db)
            .await?;
    Ok(State { version: stored(u64::try_from(row.version))?, forced_until: row.forced_until, redis_run: row.redis_run })
}

/// Gives out the next version, above the last one and above one that was seen elsewhere.
///
/// # Errors
/// When Postgres is away.
pub async fn next_version(db: impl PgExecutor<'_>, publication: Publication, seen: u64) -> sqlx::Result<u64> {
    let version = sqlx::query_scalar!(
        "update publications set version = greatest(version, $2) + 1 where name = $1 returning version",
        publication.name(),
        stored(i64::try_from(seen))?,
    )
    .fetch_one(db)
    .await?;
    stored(u64::try_from(version))
}

/// Lifts the version to a newer one that was seen; `false` when the row is not older.
///
/// # Errors
/// When Postgres is away.
pub async fn raise(db: impl PgExecutor<'_>, publication: Publication, seen: u64) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "update publications set version = $2 where name = $1 and version < $2",
        publication.name(),
        stored(i64::try_from(seen))?,
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Makes what is published until then carry the operator's word.
///
/// # Errors
/// When Postgres is away.
pub async fn force(db: impl PgExecutor<'_>, publication: Publication, until: DateTime<Utc>) -> sqlx::Result<()> {
    sqlx::query!("update publications set forced_until = $2 where name = $1", publication.name(), until)
        .execute(db)
        .await
        .map(drop)
}

/// Remembers which run of Redis has everything.
///
/// # Errors
/// When Postgres is away.
pub async fn set_redis_run(db: impl PgExecutor<'_>, publication: Publication, run: &str) -> sqlx::Result<()> {
    sqlx::query!("update publications set redis_run = $2 where name = $1", publication.name(), run)
        .execute(db)
        .await
        .map(drop)
}

/// Has the directory published once the transaction commits; a lost nudge costs only delay.
///
/// # Errors
/// When Postgres is away.
pub async fn nudge_directory(db: impl PgExecutor<'_>) -> sqlx::Result<()> {
    super::duty::nudge(db, DIRECTORY_PUBLISHER).await
}
