//! What the gateway knows about callers: a bounded copy of the principals in Redis that follows their changes.
//!
//! A value is used without asking while invalidations are proven to arrive (`feed`, `proof`); otherwise it is read
//! again over the same connection, and if that fails it serves until `stale_after` has passed since the last proof.

mod cache;
mod completeness;
mod feed;
mod lookup;
mod proof;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use arc_swap::ArcSwapOption;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};
use protocol::ids::{ApiKeyId, UserId};
use protocol::keys::Key;
use protocol::principal::{Complete, FundsEntry, HotkeyEntry, KeyEntry, READ_SCRIPT, UserEntry, Versioned};
use protocol::signing::Hotkey;
use redis::aio::MultiplexedConnection;
use serde::Serialize;
use serde::de::DeserializeOwned;

use self::cache::{Cache, Held, Settled};
use self::completeness::{Completeness, Verdict};
pub(crate) use self::feed::client;
use self::lookup::Lookup;
use self::proof::Proof;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::refusal::Refusal;

/// How often a value is read anew because it changed while it was read.
const MAX_READINGS: usize = 3;

/// Neither Redis nor control can be asked, and what is held is too old.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("principals cannot be read")]
pub struct Unavailable;

/// The principals.
pub struct Principals {
    client: redis::Client,
    /// The followed connection; none while there is none.
    connection: ArcSwapOption<MultiplexedConnection>,
    proof: Proof,
    completeness: Completeness,
    lookup: Lookup,
    metrics: Arc<Metrics>,
    keys: Store<KeyEntry>,
    users: Store<UserEntry>,
    hotkeys: Store<HotkeyEntry>,
    funds: Store<FundsEntry>,
}

/// What one reading gives every caller that waits for it.
type Reading<T> = Result<Option<Arc<T>>, Unavailable>;
type Flight<T> = Shared<BoxFuture<'static, Reading<T>>>;
type Flights<T> = Mutex<HashMap<Arc<str>, WeakShared<BoxFuture<'static, Reading<T>>>>>;

/// Principals of one kind, and the readings under way.
struct Store<T> {
    cache: Cache<T>,
    flights: Flights<T>,
}

/// A kind of principal.
trait Kind: Serialize + DeserializeOwned + Send + Sync + Sized + 'static {
    /// Whether a value that is known to have changed may serve like any other while the new one cannot be read.
    const SERVES_OVERTAKEN: bool;

    fn store(principals: &Principals) -> &Store<Self>;
}

impl Kind for KeyEntry {
    const SERVES_OVERTAKEN: bool = false;

    fn store(principals: &Principals) -> &Store<Self> {
        &principals.keys
    }
}

impl Kind for UserEntry {
    const SERVES_OVERTAKEN: bool = false;

    fn store(principals: &Principals) -> &Store<Self> {
        &principals.users
    }
}

impl Kind for HotkeyEntry {
    const SERVES_OVERTAKEN: bool = false;

    fn store(principals: &Principals) -> &Store<Self> {
        &principals.hotkeys
    }
}

impl Kind for FundsEntry {
    // Funds change with every batch of calls that is counted: without this a busy user would be the first to be
    // turned away. What this gateway knows of its own calls is added anyway.
    const SERVES_OVERTAKEN: bool = true;

    fn store(principals: &Principals) -> &Store<Self> {
        &principals.funds
    }
}

impl From<Unavailable> for Refusal {
    fn from(_: Unavailable) -> Self {
        Self::NotReady("accounts cannot be checked at the moment")
    }
}

impl Principals {
    /// An empty copy; [`Principals::follow`] has to run for it to answer.
    ///
    /// # Errors
    /// When the Redis URL is wrong or does not ask for RESP3, without which invalidations cannot arrive.
    pub fn new(config: &Config, metrics: Arc<Metrics>) -> anyhow::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            client: client(&config.redis_url)?,
            connection: ArcSwapOption::empty(),
            proof: Proof::new(config.stale_after),
            completeness: Completeness::default(),
            lookup: Lookup::new(&config.control_url, config.internal_credential.clone())?,
            metrics,
            keys: Store::new(config.principals),
            users: Store::new(config.principals),
            hotkeys: Store::new(config.principals),
            funds: Store::new(config.principals),
        }))
    }

    /// One API key.
    ///
    /// # Errors
    /// When it cannot be known.
    pub async fn key(self: &Arc<Self>, id: ApiKeyId) -> Result<Option<Arc<KeyEntry>>, Unavailable> {
        self.find(&Key::api_key(id)).await
    }

    /// One user.
    ///
    /// # Errors
    /// When it cannot be known.
    pub async fn user(self: &Arc<Self>, id: UserId) -> Result<Option<Arc<UserEntry>>, Unavailable> {
        self.find(&Key::user(id)).await
    }

    /// Whose hotkey it is.
    ///
    /// # Errors
    /// When it cannot be known.
    pub async fn hotkey(self: &Arc<Self>, hotkey: &Hotkey) -> Result<Option<Arc<HotkeyEntry>>, Unavailable> {
        self.find(&Key::hotkey(hotkey)).await
    }

    /// What a user has and has used.
    ///
    /// # Errors
    /// When it cannot be known.
    pub async fn funds(self: &Arc<Self>, id: UserId) -> Result<Option<Arc<FundsEntry>>, Unavailable> {
        self.find(&Key::funds(id)).await
    }

    /// The followed connection to Redis.
    pub(crate) fn connection(&self) -> Result<MultiplexedConnection, Unavailable> {
        self.connection.load().as_deref().cloned().ok_or(Unavailable)
    }

    async fn find<T: Kind>(self: &Arc<Self>, key: &Key) -> Reading<T> {
        let now = Instant::now();
        let store = T::store(self);
        let old = match store.cache.find(key.as_str(), now) {
            Held::Value(value, verified) if self.proof.is_fresh(verified, now) => return Ok(Some(value)),
            Held::Absent(verified) if self.proof.is_fresh(verified, now) => return Ok(None),
            Held::Value(..) | Held::Overtaken(..) | Held::Absent(_) | Held::Unknown => self.reading(store, key).await,
        };
        old.or_else(|unavailable| match store.cache.find(key.as_str(), Instant::now()) {
            Held::Value(value, verified) if self.proof.is_tolerable(verified, Instant::now()) => Ok(Some(value)),
            Held::Overtaken(value, verified)
                if T::SERVES_OVERTAKEN && self.proof.is_tolerable(verified, Instant::now()) =>
            {
                Ok(Some(value))
            }
            Held::Value(..) | Held::Overtaken(..) | Held::Absent(_) | Held::Unknown => Err(unavailable),
        })
    }

    /// Joins the reading of this key that is under way, or begins one.
    fn reading<T: Kind>(self: &Arc<Self>, store: &Store<T>, key: &Key) -> Flight<T> {
        let mut flights = store.flights.lock().expect("nothing panics under this lock");
        if let Some(flight) = flights.get(key.as_str()).and_then(WeakShared::upgrade) {
            return flight;
        }
        let key: Arc<str> = Arc::from(key.as_str());
        let landing =
            Landing::<T> { principals: Arc::clone(self), key: Arc::clone(&key), kind: std::marker::PhantomData };
        let flight = async move { landing.principals.read_until_settled(&landing.key).await }.boxed().shared();
        if let Some(weak) = flight.downgrade() {
            flights.insert(key, weak);
        }
        flight
    }

    async fn read_until_settled<T: Kind>(&self, key: &Arc<str>) -> Reading<T> {
        let cache = &T::store(self).cache;
        let mut last = None;
        for _ in 0..MAX_READINGS {
            let ticket = cache.ticket(key, self.proof.current());
            let found = self.read(key).await?;
            match cache.settle(key, ticket, found, Instant::now()) {
                Settled::Kept(value) => return Ok(value),
                Settled::Overtaken(value) => last = value,
            }
        }
        // It, or a neighbour in the cache, changes faster than it can be read. What was read last is at most as old as
        // one reading takes; it serves those who wait and is not kept.
        Ok(last)
    }

    /// Reads a principal from Redis, from control where Redis does not hold all of them.
    async fn read<T: Kind>(&self, key: &str) -> Result<Option<Versioned<T>>, Unavailable> {
        let mut connection = self.connection()?;
        // One script: the marker speaks about the very moment of the miss.
        let mut reading = redis::cmd("EVAL_RO");
        reading.arg(READ_SCRIPT).arg(2).arg(key).arg(Key::principals_complete().as_str());
        let (fields, marker): (HashMap<String, String>, HashMap<String, String>) =
            reading.query_async(&mut connection).await.map_err(|error| {
                tracing::debug!(%error, "cannot read a principal from redis");
                Unavailable
            })?;
        let complete = self.believes(&marker);
        let found = Versioned::from_fields(&fields).map_err(|error| {
            tracing::error!(%error, "redis holds a principal that cannot be read");
            Unavailable
        })?;
        if found.is_some() || complete {
            return Ok(found);
        }
        self.metrics.who.principals_looked_up.inc();
        self.lookup.find(key).await
    }

    fn believes(&self, marker: &HashMap<String, String>) -> bool {
        let marker = match Versioned::from_fields(marker) {
            Ok(marker) => marker,
            Err(error) => {
                self.metrics.who.principals_refused.inc();
                tracing::error!(%error, "redis holds a marker of completeness that cannot be read");
                return false;
            }
        };
        match self.completeness.judge(marker.as_ref(), Instant::now()) {
            Verdict::Complete => true,
            Verdict::Incomplete => false,
            Verdict::Refused { anew } => {
                if let Some(Versioned { version, entry: Complete { users, keys, .. } }) = marker.filter(|_| anew) {
                    self.metrics.who.principals_refused.inc();
                    tracing::warn!(version, users, keys, "refused a set of principals that is older or has lost half");
                }
                false
            }
        }
    }
}

/// Takes a reading off the list when it is over or nobody waits for it any more.
struct Landing<T: Kind> {
    principals: Arc<Principals>,
    key: Arc<str>,
    kind: std::marker::PhantomData<fn() -> T>,
}

impl<T: Kind> Drop for Landing<T> {
    fn drop(&mut self) {
        T::store(&self.principals).flights.lock().expect("nothing panics under this lock").remove(&self.key);
    }
}

impl<T> Store<T> {
    fn new(capacity: usize) -> Self {
        Self { cache: Cache::new(capacity), flights: Mutex::default() }
    }
}

#[cfg(test)]
mod stand_in;
