//! Private chutes that other users may call.

use std::collections::HashMap;

use protocol::ids::{ChuteId, UserId};
use sqlx::PgExecutor;

/// Shares a chute with a user; doing so again changes nothing.
///
/// # Errors
/// When Postgres is away.
pub async fn add(db: impl PgExecutor<'_>, chute: ChuteId, user: UserId) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into shares (chute_id, user_id) values ($1, $2) on conflict on constraint shares_pkey do nothing",
        chute.0,
        user.0,
    )
    .execute(db)
    .await
    .map(drop)
}

/// Ends a share; `false` when there was none.
///
/// # Errors
/// When Postgres is away.
pub async fn remove(db: impl PgExecutor<'_>, chute: ChuteId, user: UserId) -> sqlx::Result<bool> {
    let done = sqlx::query!("delete from shares where chute_id = $1 and user_id = $2", chute.0, user.0).execute(db);
    Ok(done.await?.rows_affected() == 1)
}

/// All shares by chute, users ordered.
///
/// # Errors
/// When Postgres is away.
pub async fn all(db: impl PgExecutor<'_>) -> sqlx::Result<HashMap<ChuteId, Vec<UserId>>> {
    let rows = sqlx::query!("select chute_id, user_id from shares order by chute_id, user_id").fetch_all(db).await?;
    let mut shares: HashMap<ChuteId, Vec<UserId>> = HashMap::new();
    for row in rows {
        shares.entry(ChuteId(row.chute_id)).or_default().push(UserId(row.user_id));
    }
    Ok(shares)
}
