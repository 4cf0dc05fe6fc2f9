//! Changes of principals that Redis does not have yet, in the order they were made.

use protocol::ids::{ApiKeyId, UserId};
use protocol::signing::Hotkey;
use sqlx::PgExecutor;
use uuid::Uuid;

use super::stored;

/// The duty that a change nudges, and its channel.
pub const PUBLISHER: &str = "publish_principals";

/// Which principal changed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// An API key.
    Key(ApiKeyId),
    /// A user's identity.
    User(UserId),
    /// Whose hotkey it is.
    Hotkey(Hotkey),
    /// A user's balance or used quota.
    Funds(UserId),
}

impl Change {
    /// Its kind, in the table, in look-ups and as a metric label.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Key(_) => "key",
            Self::User(_) => "user",
            Self::Hotkey(_) => "hotkey",
            Self::Funds(_) => "funds",
        }
    }

    /// Its identifier as text.
    #[must_use]
    pub fn id(&self) -> String {
        match self {
            Self::Key(id) => id.to_string(),
            Self::User(id) | Self::Funds(id) => id.to_string(),
            Self::Hotkey(hotkey) => hotkey.to_string(),
        }
    }

    /// Reads kind and identifier; `None` when they are no principal's.
    #[must_use]
    pub fn parse(kind: &str, id: &str) -> Option<Self> {
        let uuid = || Uuid::parse_str(id).ok();
        match kind {
            "key" => Some(Self::Key(ApiKeyId(uuid()?))),
            "user" => Some(Self::User(UserId(uuid()?))),
            "hotkey" => Some(Self::Hotkey(Hotkey::parse(id).ok()?)),
            "funds" => Some(Self::Funds(UserId(uuid()?))),
            _ => None,
        }
    }
}

/// A change with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Its place.
    pub sequence: i64,
    /// What changed.
    pub change: Change,
}

/// Records changes in the transaction that makes them, and nudges the publisher once it commits.
///
/// # Errors
/// When Postgres is away.
pub async fn record(db: impl PgExecutor<'_>, changes: &[Change]) -> sqlx::Result<()> {
    let kinds: Vec<&str> = changes.iter().map(Change::kind).collect();
    let ids: Vec<String> = changes.iter().map(Change::id).collect();
    sqlx::query!(
        "with added as (insert into outbox (kind, id) select * from unnest($1::text[], $2::text[]))
        select pg_notify($3, '')",
        &kinds as &[&str],
        &ids,
        PUBLISHER,
    )
    .execute(db)
    .await
    .map(drop)
}

/// The oldest changes.
///
/// # Errors
/// When Postgres is away or holds a change that is none.
pub async fn oldest(db: impl PgExecutor<'_>, limit: i64) -> sqlx::Result<Vec<Waiting>> {
    let rows =
        sqlx::query!("select sequence, kind, id from outbox order by sequence limit $1", limit).fetch_all(db).await?;
    rows.into_iter()
        .map(|row| {
            let change = Change::parse(&row.kind, &row.id).ok_or(UnknownChange);
            Ok(Waiting { sequence: row.sequence, change: stored(change)? })
        })
        .collect()
}

/// Forgets changes that were published.
///
/// # Errors
/// When Postgres is away.
pub async fn remove(db: impl PgExecutor<'_>, sequences: &[i64]) -> sqlx::Result<()> {
    sqlx::query!("delete from outbox where sequence = any($1)", sequences).execute(db).await.map(drop)
}

/// How many changes wait.
///
/// # Errors
/// When Postgres is away.
pub async fn count(db: impl PgExecutor<'_>) -> sqlx::Result<i64> {
    sqlx::query_scalar!(r#"select count(*) as "count!" from outbox"#).fetch_one(db).await
}

/// A row of the outbox that names no principal.
#[derive(Debug, thiserror::Error)]
#[error("a change in the outbox names no principal")]
struct UnknownChange;
