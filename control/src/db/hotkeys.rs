//! Whose hotkey it is.

use protocol::ids::UserId;
use protocol::principal::{HotkeyEntry, Versioned};
use protocol::signing::Hotkey;
use sqlx::PgExecutor;

use super::stored;

/// Gives a free hotkey to a user; `false` when somebody has it.
///
/// # Errors
/// When the user has another one or Postgres is away.
pub async fn give(db: impl PgExecutor<'_>, hotkey: &Hotkey, user: UserId) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "insert into hotkeys as held (hotkey, user_id) values ($1, $2)
        on conflict on constraint hotkeys_pkey
        do update set user_id = excluded.user_id, version = held.version + 1 where held.user_id is null",
        hotkey.as_str(),
        user.0,
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Takes the hotkey of a user away and says which it was.
///
/// # Errors
/// When Postgres is away.
pub async fn take(db: impl PgExecutor<'_>, user: UserId) -> sqlx::Result<Option<Hotkey>> {
    let hotkey = sqlx::query_scalar!(
        "update hotkeys set user_id = null, version = version + 1 where user_id = $1 returning hotkey",
        user.0,
    )
    .fetch_optional(db)
    .await?;
    stored(hotkey.map(|text| Hotkey::parse(&text)).transpose())
}

/// The hotkey of a user.
///
/// # Errors
/// When Postgres is away.
pub async fn of_user(db: impl PgExecutor<'_>, user: UserId) -> sqlx::Result<Option<Hotkey>> {
    let hotkey =
        sqlx::query_scalar!("select hotkey from hotkeys where user_id = $1", user.0).fetch_optional(db).await?;
    stored(hotkey.map(|text| Hotkey::parse(&text)).transpose())
}

/// The next hotkeys in the order of their text.
///
/// # Errors
/// When Postgres is away.
pub async fn list(db: impl PgExecutor<'_>, after: &str, limit: i64) -> sqlx::Result<Vec<Hotkey>> {
    let texts =
        sqlx::query_scalar!("select hotkey from hotkeys where hotkey > $1 order by hotkey limit $2", after, limit)
            .fetch_all(db)
            .await?;
    texts.iter().map(|text| stored(Hotkey::parse(text))).collect()
}

/// Lifts the version above a newer one that was published; `false` when the row is not older.
///
/// # Errors
/// When Postgres is away.
pub async fn raise(db: impl PgExecutor<'_>, hotkey: &Hotkey, published: u64) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "update hotkeys set version = $2 + 1 where hotkey = $1 and version < $2",
        hotkey.as_str(),
        stored(i64::try_from(published))?,
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// What gateways know of a hotkey.
///
/// # Errors
/// When Postgres is away.
pub async fn entry(db: impl PgExecutor<'_>, hotkey: &Hotkey) -> sqlx::Result<Option<Versioned<HotkeyEntry>>> {
    let row = sqlx::query!("select user_id, version from hotkeys where hotkey = $1", hotkey.as_str())
        .fetch_optional(db)
        .await?;
    row.map(|row| {
        let entry = HotkeyEntry { user: row.user_id.map(UserId) };
        Ok(Versioned { version: stored(row.version.try_into())?, entry })
    })
    .transpose()
}
