//! Running copies of chutes.

use chrono::{DateTime, Utc};
use protocol::envelope::Generation;
use protocol::ids::{ChuteId, InstanceId};
use protocol::sealing::SealedKey;
use protocol::signing::Hotkey;
use sqlx::PgExecutor;
use uuid::Uuid;

use super::stored;

/// A running copy of a chute.
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    /// Its identifier.
    pub id: InstanceId,
    /// What it is a copy of.
    pub chute: ChuteId,
    /// Address, an IP literal or a name.
    pub host: String,
    /// Port of its main server.
    pub port: u16,
    /// The miner's place on the subnet.
    pub miner_uid: i32,
    /// The miner's hotkey.
    pub hotkey: Hotkey,
    /// The envelope it speaks.
    pub generation: Generation,
    /// Its symmetric key under the database key, bound to identifier and version.
    pub sealed_key: SealedKey,
    /// Grows with each change.
    pub version: u64,
}

/// The version of a new row, which its sealed key is bound to.
pub const FIRST_VERSION: u64 = 1;

/// A row of the table.
struct Row {
    instance_id: Uuid,
    chute_id: Uuid,
    host: String,
    port: i32,
    miner_uid: i32,
    miner_hotkey: String,
    generation: String,
    sealed_key: String,
    version: i64,
}

impl TryFrom<Row> for Instance {
    type Error = sqlx::Error;

    fn try_from(row: Row) -> sqlx::Result<Self> {
        Ok(Self {
            id: InstanceId(row.instance_id),
            chute: ChuteId(row.chute_id),
            host: row.host,
            port: stored(row.port.try_into())?,
            miner_uid: row.miner_uid,
            hotkey: stored(Hotkey::parse(&row.miner_hotkey))?,
            generation: stored(row.generation.parse())?,
            sealed_key: SealedKey(row.sealed_key),
            version: stored(row.version.try_into())?,
        })
    }
}

/// Adds an instance that is active and verified.
///
/// # Errors
/// When its address is taken, there is no such chute, or Postgres is away.
pub async fn insert(db: impl PgExecutor<'_>, instance: &Instance, now: DateTime<Utc>) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into instances (instance_id, chute_id, host, port, miner_uid, miner_hotkey, generation, sealed_key,
            active, verified, version, created_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, true, true, $9, $10)",
        instance.id.0,
        instance.chute.0,
        instance.host,
        i32::from(instance.port),
        instance.miner_uid,
        instance.hotkey.as_str(),
        instance.generation.as_str(),
        instance.sealed_key.0,
        stored(i64::try_from(instance.version))?,
        now,
    )
    .execute(db)
    .await
    .map(drop)
}

/// Removes an instance; `false` when there was none.
///
/// # Errors
/// When Postgres is away.
pub async fn delete(db: impl PgExecutor<'_>, id: InstanceId) -> sqlx::Result<bool> {
    let done = sqlx::query!("delete from instances where instance_id = $1", id.0).execute(db).await?;
    Ok(done.rows_affected() == 1)
}

/// The instances that may get calls, by chute and identifier.
///
/// # Errors
/// When Postgres is away.
pub async fn serving(db: impl PgExecutor<'_>) -> sqlx::Result<Vec<Instance>> {
    let rows = sqlx::query_as!(
        Row,
        "select instance_id, chute_id, host, port, miner_uid, miner_hotkey, generation, sealed_key, version
        from instances where active and verified order by chute_id, instance_id",
    )
    .fetch_all(db)
    .await?;
    rows.into_iter().map(Instance::try_from).collect()
}
