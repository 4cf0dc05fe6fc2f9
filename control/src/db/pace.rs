//! The moving averages of chutes; a chute's row is the lock under which its attempts are measured.

use std::collections::BTreeMap;

use protocol::ids::ChuteId;
use sqlx::PgConnection;
use sqlx::types::Json;
use uuid::Uuid;

use crate::domain::pace::Pace;

/// Locks the chutes' averages until the transaction ends, always in the same order, and reads them.
///
/// # Errors
/// When Postgres is away.
pub async fn lock(db: &mut PgConnection, chutes: &[ChuteId]) -> sqlx::Result<BTreeMap<ChuteId, Pace>> {
    let ids: Vec<Uuid> = chutes.iter().map(|chute| chute.0).collect();
    sqlx::query!(
        "insert into pace (chute_id, averages)
        select chute_id, $2 from unnest($1::uuid[]) as asked (chute_id) order by chute_id
        on conflict do nothing",
        &ids,
        Json(Pace::default()) as _,
    )
    .execute(&mut *db)
    .await?;
    let rows = sqlx::query!(
        r#"select chute_id, averages as "averages: Json<Pace>" from pace
        where chute_id = any($1) order by chute_id for update"#,
        &ids,
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|row| (ChuteId(row.chute_id), row.averages.0)).collect())
}

/// Writes the averages of locked chutes.
///
/// # Errors
/// When Postgres is away.
pub async fn update(db: &mut PgConnection, paces: &BTreeMap<ChuteId, Pace>) -> sqlx::Result<()> {
    let (ids, averages): (Vec<Uuid>, Vec<Json<Pace>>) = paces.iter().map(|(id, pace)| (id.0, Json(*pace))).unzip();
    sqlx::query!(
        "update pace set averages = changed.averages
        from unnest($1::uuid[], $2::jsonb[]) as changed (chute_id, averages)
        where pace.chute_id = changed.chute_id",
        &ids,
        &averages as &[Json<Pace>],
    )
    .execute(db)
    .await
    .map(drop)
}
