//! API keys, stored as hashes.

use chrono::{DateTime, Utc};
use protocol::credential::{ApiKey, KeyHash, Scopes};
use protocol::ids::{ApiKeyId, UserId};
use protocol::principal::{KeyEntry, Versioned};
use sqlx::PgExecutor;
use sqlx::types::Json;

use super::stored;

/// Adds a key.
///
/// # Errors
/// When the user has one of this name or Postgres is away.
pub async fn insert(
    db: impl PgExecutor<'_>,
    key: &ApiKey,
    name: &str,
    scopes: &Scopes,
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    let hash = key.hash();
    sqlx::query!(
        "insert into api_keys (api_key_id, user_id, name, key_hash, scopes, created_at) values ($1, $2, $3, $4, $5, $6)",
        key.id().0,
        key.user().0,
        name,
        hash.0.as_slice(),
        Json(scopes) as _,
        now,
    )
    .execute(db)
    .await
    .map(drop)
}

/// Revokes a key; `false` when there is none that is valid.
///
/// # Errors
/// When Postgres is away.
pub async fn revoke(db: impl PgExecutor<'_>, id: ApiKeyId, now: DateTime<Utc>) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "update api_keys set revoked_at = $2, version = version + 1 where api_key_id = $1 and revoked_at is null",
        id.0,
        now,
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Revokes all keys of a user and says which.
///
/// # Errors
/// When Postgres is away.
pub async fn revoke_all(db: impl PgExecutor<'_>, user: UserId, now: DateTime<Utc>) -> sqlx::Result<Vec<ApiKeyId>> {
    let ids = sqlx::query_scalar!(
        "update api_keys set revoked_at = $2, version = version + 1 where user_id = $1 and revoked_at is null
        returning api_key_id",
        user.0,
        now,
    )
    .fetch_all(db)
    .await?;
    Ok(ids.into_iter().map(ApiKeyId).collect())
}

/// The next keys by identifier, revoked ones included.
///
/// # Errors
/// When Postgres is away.
pub async fn list_ids(db: impl PgExecutor<'_>, after: ApiKeyId, limit: i64) -> sqlx::Result<Vec<ApiKeyId>> {
    let ids = sqlx::query_scalar!(
        "select api_key_id from api_keys where api_key_id > $1 order by api_key_id limit $2",
        after.0,
        limit,
    )
    .fetch_all(db)
    .await?;
    Ok(ids.into_iter().map(ApiKeyId).collect())
}

/// Number of keys, revoked ones included.
///
/// # Errors
/// When Postgres is away.
pub async fn count(db: impl PgExecutor<'_>) -> sqlx::Result<u64> {
    let count = sqlx::query_scalar!(r#"select count(*) as "count!" from api_keys"#).fetch_one(db).await?;
    stored(count.try_into())
}

/// Lifts the version above a newer one that was published; `false` when the row is not older.
///
/// # Errors
/// When Postgres is away.
pub async fn raise(db: impl PgExecutor<'_>, id: ApiKeyId, published: u64) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "update api_keys set version = $2 + 1 where api_key_id = $1 and version < $2",
        id.0,
        stored(i64::try_from(published))?,
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// What gateways know of a key.
///
/// # Errors
/// When Postgres is away.
pub async fn entry(db: impl PgExecutor<'_>, id: ApiKeyId) -> sqlx::Result<Option<Versioned<KeyEntry>>> {
    let row = sqlx::query!(
        r#"select user_id, key_hash, scopes as "scopes: Json<Scopes>", version, revoked_at
        from api_keys where api_key_id = $1"#,
        id.0,
    )
    .fetch_optional(db)
    .await?;
    row.map(|row| {
        let entry = KeyEntry {
            id,
            hash: KeyHash(stored(row.key_hash.as_slice().try_into())?),
            user: UserId(row.user_id),
            scopes: row.scopes.0,
            revoked: row.revoked_at.is_some(),
        };
        Ok(Versioned { version: stored(row.version.try_into())?, entry })
    })
    .transpose()
}
