//! Principals as gateways know them, whatever their kind.

use chrono::{DateTime, Utc};
use protocol::keys::Key;
use sqlx::PgExecutor;

use super::outbox::Change;
use super::{api_keys, balances, hotkeys, users};
use crate::domain::posting::Posting;

/// The principal that a change speaks of, as it is now.
///
/// # Errors
/// When Postgres is away.
pub async fn find(db: impl PgExecutor<'_>, change: &Change, now: DateTime<Utc>) -> sqlx::Result<Option<Posting>> {
    Ok(match change {
        Change::Key(id) => api_keys::entry(db, *id).await?.map(|entry| Posting::new(Key::api_key(*id), &entry)),
        Change::User(id) => users::entry(db, *id).await?.map(|entry| Posting::new(Key::user(*id), &entry)),
        Change::Hotkey(hotkey) => {
            hotkeys::entry(db, hotkey).await?.map(|entry| Posting::new(Key::hotkey(hotkey), &entry))
        }
        Change::Funds(id) => balances::entry(db, *id, now).await?.map(|entry| Posting::new(Key::funds(*id), &entry)),
    })
}

/// Lifts the version of a principal above the one that Redis holds; `false` when its row is not older than that.
///
/// A row is read before it is posted, so Redis is ahead of what was read whenever another publisher was faster. It is
/// ahead of the row itself only when Postgres was set back to an earlier time.
///
/// # Errors
/// When Postgres is away.
pub async fn raise(db: impl PgExecutor<'_>, change: &Change, held: u64) -> sqlx::Result<bool> {
    match change {
        Change::Key(id) => api_keys::raise(db, *id, held).await,
        Change::User(id) => users::raise(db, *id, held).await,
        Change::Hotkey(hotkey) => hotkeys::raise(db, hotkey, held).await,
        Change::Funds(id) => balances::raise(db, *id, held).await,
    }
}
