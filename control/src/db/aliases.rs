//! Other names of models.

use std::collections::BTreeMap;

use sqlx::PgExecutor;

/// Sets an alias.
///
/// # Errors
/// When a name breaks its rule or Postgres is away.
pub async fn set(db: impl PgExecutor<'_>, alias: &str, name: &str) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into aliases (alias, name) values ($1, $2)
        on conflict on constraint aliases_pkey do update set name = excluded.name",
        alias,
        name,
    )
    .execute(db)
    .await
    .map(drop)
}

/// Removes an alias; `false` when there was none.
///
/// # Errors
/// When Postgres is away.
pub async fn remove(db: impl PgExecutor<'_>, alias: &str) -> sqlx::Result<bool> {
    let done = sqlx::query!("delete from aliases where alias = $1", alias).execute(db).await?;
    Ok(done.rows_affected() == 1)
}

/// All aliases.
///
/// # Errors
/// When Postgres is away.
pub async fn all(db: impl PgExecutor<'_>) -> sqlx::Result<BTreeMap<String, String>> {
    let rows = sqlx::query!("select alias, name from aliases").fetch_all(db).await?;
    Ok(rows.into_iter().map(|row| (row.alias, row.name)).collect())
}
