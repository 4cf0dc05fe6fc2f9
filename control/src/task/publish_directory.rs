//! Publishes what gateways route by, as a versioned snapshot.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use chrono::{DateTime, Utc};
use protocol::directory::{Chute, Directory, Instance};
use protocol::ids::{ChuteId, InstanceId};
use protocol::sealing::{DirectoryKey, SealedKey};
use sha2::{Digest, Sha256};
use sqlx::{PgConnection, PgPool};
use tokio::time::Instant;
use tracing::{info, warn};

use super::Task;
use crate::clients::board::Board;
use crate::db;
use crate::db::publications::{self, Publication};
use crate::metrics::Metrics;

/// How old the counts of calls may be: they order a list, and each change is a new snapshot.
const COUNTS_EVERY: Duration = Duration::from_secs(60);

/// The duty.
pub struct PublishDirectory {
    db: PgPool,
    board: Board,
    keys: Keys,
    official_users: Vec<String>,
    counts: Mutex<Option<(Instant, BTreeMap<ChuteId, u64>)>>,
    metrics: Arc<Metrics>,
}

/// Opens instance keys as they rest in Postgres and seals them for gateways.
pub struct Keys {
    database: DirectoryKey,
    directory: DirectoryKey,
    /// Sealing is random: without memory each snapshot would differ from the last.
    sealed: Mutex<HashMap<(InstanceId, u64), SealedKey>>,
}

impl Keys {
    /// The two keys.
    #[must_use]
    pub fn new(database: DirectoryKey, directory: DirectoryKey) -> Self {
        Self { database, directory, sealed: Mutex::default() }
    }

    /// The instances of a snapshot by chute; one whose key cannot be opened is left out.
    fn seal(&self, instances: Vec<db::instances::Instance>) -> HashMap<ChuteId, Vec<Instance>> {
        let mut held = self.sealed.lock().unwrap_or_else(PoisonError::into_inner);
        let mut kept = HashMap::with_capacity(instances.len());
        let mut by_chute: HashMap<ChuteId, Vec<Instance>> = HashMap::new();
        for instance in instances {
            let place = (instance.id, instance.version);
            let sealed = held.remove(&place).or_else(|| self.seal_anew(&instance));
            let Some(key) = sealed else {
                warn!(instance.id = %instance.id, "left out an instance: its key was sealed under another database key");
                continue;
            };
            kept.insert(place, key.clone());
            by_chute.entry(instance.chute).or_default().push(Instance {
                id: instance.id,
                host: instance.host,
                port: instance.port,
                miner_uid: instance.miner_uid,
                hotkey: instance.hotkey,
                generation: instance.generation,
                version: instance.version,
                key,
            });
        }
        *held = kept;
        by_chute
    }

    fn seal_anew(&self, instance: &db::instances::Instance) -> Option<SealedKey> {
        let key = self.database.open(&instance.sealed_key, instance.id, instance.version).ok()?;
        Some(self.directory.seal(&key, instance.id, instance.version))
    }
}

impl PublishDirectory {
    /// The duty.
    #[must_use]
    pub fn new(db: PgPool, board: Board, keys: Keys, official_users: Vec<String>, metrics: Arc<Metrics>) -> Self {
        Self { db, board, keys, official_users, counts: Mutex::default(), metrics }
    }

    /// The directory as Postgres has it now.
    async fn load(&self, db: &mut PgConnection) -> anyhow::Result<Directory> {
        let chutes = db::chutes::all(&mut *db).await.context("reading chutes")?;
        let mut shares = db::shares::all(&mut *db).await.context("reading shares")?;
        let instances = db::instances::serving(&mut *db).await.context("reading instances")?;
        let counts = self.counts(db).await.context("reading counts of calls")?;
        let mut instances = self.keys.seal(instances);
        let chutes = chutes.into_iter().map(|chute| Chute {
            shares: shares.remove(&chute.id).unwrap_or_default(),
            instances: instances.remove(&chute.id).unwrap_or_default(),
            invocations: counts.get(&chute.id).copied().unwrap_or_default(),
            id: chute.id,
            name: chute.name,
            slug: chute.slug,
            owner: chute.owner,
            public: chute.public,
            template: chute.template,
            cords: chute.cords,
            image: chute.image,
            image_owner: chute.image_owner,
            model: chute.model,
            price: chute.price,
            concurrency: chute.concurrency,
            multiplier: chute.multiplier,
            rate_per_minute: chute.rate_per_minute,
            max_concurrent: chute.max_concurrent,
            maintenance: chute.maintenance,
        });
        Ok(Directory {
            chutes: chutes.collect(),
            official_users: db::users::ids_of_names(&mut *db, &self.official_users).await.context("reading users")?,
            aliases: db::aliases::all(db).await.context("reading aliases")?,
        })
    }

    /// How often each chute was called, not newer than a minute.
    async fn counts(&self, db: &mut PgConnection) -> sqlx::Result<BTreeMap<ChuteId, u64>> {
        let held = self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((read_at, counts)) = held
            && read_at.elapsed() < COUNTS_EVERY
        {
            return Ok(counts);
        }
        let counts = db::chute_calls::all(db).await?;
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), counts.clone()));
        Ok(counts)
    }
}

impl Task for PublishDirectory {
    const NAME: &'static str = publications::DIRECTORY_PUBLISHER;
    const EVERY: Duration = Duration::from_millis(500);

    async fn run(&self, now: DateTime<Utc>) -> anyhow::Result<()> {
        let posted = self.board.snapshot().await?;
        let mut transaction = self.db.begin().await.context("beginning a transaction")?;
        // Everything is read after the lock is held: a higher version is never made from an older state.
        publications::lock(&mut *transaction, Publication::Directory).await.context("waiting for the turn")?;
        let state = publications::get(&mut *transaction, Publication::Directory).await.context("reading the state")?;
        let directory = self.load(&mut transaction).await?;
        let forced = state.forced(now);
        if let Some(posted) = &posted
            && posted.forced == forced
            && posted.sha256 == body_hash(&directory)
        {
            return Ok(());
        }
        let seen = posted.map_or(0, |posted| posted.version);
        let version = publications::next_version(&mut *transaction, Publication::Directory, seen).await?;
        transaction.commit().await.context("committing the version")?;
        let posted = self.board.post_snapshot(version, &directory.to_snapshot(version, now, forced)).await?;
        if posted {
            let (chutes, instances) = (directory.chutes.len(), directory.instance_count());
            self.metrics.directory_version.set(i64::try_from(version)?);
            self.metrics.directory_chutes.set(i64::try_from(chutes)?);
            self.metrics.directory_instances.set(i64::try_from(instances)?);
            info!(task = Self::NAME, version, chutes, instances, forced, "published the directory");
        }
        Ok(())
    }
}

/// The hash that a snapshot of this directory states.
fn body_hash(directory: &Directory) -> String {
    let snapshot = directory.to_snapshot(0, DateTime::UNIX_EPOCH, false);
    let body = snapshot.split_once('\n').map_or("", |(_, body)| body);
    hex::encode(Sha256::digest(body.as_bytes()))
}
