//! What gateways know of a principal, whatever its kind.

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
