//! What was published last, and whether the operator insists on it.

use chrono::{DateTime, Utc};
use sqlx::PgExecutor;

use super::stored;

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

/// Its state, locked until the transaction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// Version published last.
    pub version: u64,
    /// Until when the operator insists on what is published.
    pub forced_until: Option<DateTime<Utc>>,
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
    sqlx::query!("select pg_advisory_xact_lock(hashtextextended($1, 1))", publication.name()).execute(db).await.map(drop)
}

/// Its state.
///
/// # Errors
/// When Postgres is away.
pub async fn get(db: impl PgExecutor<'_>, publication: Publication) -> sqlx::Result<State> {
    let row = sqlx::query!("select version, forced_until from publications where name = $1", publication.name())
        .fetch_one(db)
        .await?;
    Ok(State { version: stored(u64::try_from(row.version))?, forced_until: row.forced_until })
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
