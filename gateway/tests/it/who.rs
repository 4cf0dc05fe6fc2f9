//! One gateway's knowledge of callers over a private Redis, with the means to change what it should know.

use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use gateway::auth::{Auth, Caller, Presented};
use gateway::clock::Clock;
use gateway::config::Config;
use gateway::directory::Directory;
use gateway::metrics::Metrics;
use gateway::principals::Principals;
use gateway::refusal::Refusal;
use protocol::credential::{ApiKey, Scopes};
use protocol::ids::UserId;
use protocol::keys::Key;
use protocol::principal::{Bucket, Complete, KeyEntry, UserEntry, Versioned, WRITE_SCRIPT};
use protocol::session::{SessionSigner, SessionVerifier};
use protocol::signing::Covers;
use serde::Serialize;
use tokio::task::JoinSet;

use crate::control_stand_in::{CREDENTIAL, ControlStandIn};
use crate::redis_server::RedisServer;

/// The key under which tests seal instance keys.
pub(crate) const DIRECTORY_KEY: &str = "2222222222222222222222222222222222222222222222222222222222222222";

/// What a gateway knows, and where from.
pub(crate) struct Who {
    pub(crate) redis: RedisServer,
    pub(crate) control: ControlStandIn,
    pub(crate) principals: Arc<Principals>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) auth: Arc<Auth>,
    pub(crate) metrics: Arc<Metrics>,
    _following: JoinSet<()>,
}

impl Who {
    /// Starts everything and waits until principals are followed.
    pub(crate) async fn start() -> Self {
        let redis = RedisServer::start();
        let url = redis.url();
        Self::start_with(redis, &url, 30).await
    }

    /// The same with another way to Redis and another patience.
    pub(crate) async fn start_with(redis: RedisServer, url: &str, stale_after: u64) -> Self {
        // Another test of this process may have installed it before.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let control = ControlStandIn::start().await;
        let config = config(url, &control.url, stale_after);
        let metrics = Arc::new(Metrics::new().unwrap());
        let principals = Principals::new(&config, Arc::clone(&metrics)).unwrap();
        let directory = Directory::new(&config, Clock::default(), Arc::clone(&metrics)).unwrap();
        let sessions = SessionVerifier::new(signer().public_key());
        let auth = Arc::new(Auth::new(Arc::clone(&principals), sessions, Clock::default()));
        let mut following = JoinSet::new();
        following.spawn(Arc::clone(&principals).follow());
        following.spawn(Arc::clone(&directory).follow());
        let who = Self { redis, control, principals, directory, auth, metrics, _following: following };
        eventually("principals are followed", async || who.metrics.redis.principals.get() == 1).await;
        who
    }

    /// Writes an entry as control does.
    pub(crate) fn publish(&self, key: &Key, version: u64, entry: &impl Serialize) {
        publish(&mut self.redis.connection(), key, version, entry);
    }

    /// Says that all principals are in Redis.
    pub(crate) fn publish_complete(&self, version: u64, users: u64, keys: u64) {
        self.publish(&Key::principals_complete(), version, &Complete { users, keys, forced: false });
    }

    /// Publishes a user with a key that may do everything.
    pub(crate) fn publish_caller(&self) -> ApiKey {
        let user = user();
        let key = ApiKey::generate(user.id);
        self.publish(&Key::user(user.id), 1, &user);
        self.publish(&Key::api_key(key.id()), 1, &entry(&key, false));
        key
    }

    /// Publishes that a key was revoked.
    pub(crate) fn revoke(&self, key: &ApiKey, version: u64) {
        self.publish(&Key::api_key(key.id()), version, &entry(key, true));
    }

    pub(crate) async fn identify(&self, key: &ApiKey) -> Result<Caller, Refusal> {
        identify(&self.auth, key).await
    }
}

/// Presents a key as a call would.
pub(crate) async fn identify(auth: &Auth, key: &ApiKey) -> Result<Caller, Refusal> {
    auth.identify(Presented::Key(key.clone()), Covers::Body(b"")).await
}

/// Writes an entry as control does.
pub(crate) fn publish(connection: &mut redis::Connection, key: &Key, version: u64, entry: &impl Serialize) {
    let entry = serde_json::to_string(entry).unwrap();
    redis::Script::new(WRITE_SCRIPT).key(key.as_str()).arg(version).arg(entry).invoke::<u8>(connection).unwrap();
}

/// Writes an entry in spite of the version that is there.
pub(crate) fn overwrite(connection: &mut redis::Connection, key: &Key, version: u64, entry: KeyEntry) {
    let fields = Versioned { version, entry }.to_fields();
    redis::Cmd::hset_multiple(key.as_str(), &fields).exec(connection).unwrap();
}

/// A user with the usual limits.
pub(crate) fn user() -> UserEntry {
    UserEntry {
        id: UserId::random(),
        username: "caller".into(),
        generation: 0,
        permissions: 0,
        rate_per_minute: None,
        max_concurrent: None,
        quotas: [(Bucket::Default, 200)].into(),
        deleted: false,
    }
}

/// The published form of a key.
pub(crate) fn entry(key: &ApiKey, revoked: bool) -> KeyEntry {
    KeyEntry { id: key.id(), hash: key.hash(), user: key.user(), scopes: Scopes::Admin, revoked }
}

/// The signer of sessions.
pub(crate) fn signer() -> SessionSigner {
    SessionSigner::from_seed([9; 32])
}

/// Waits for a condition.
pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds().await {
        assert!(Instant::now() < deadline, "it never came that {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn config(redis_url: &str, control_url: &str, stale_after: u64) -> Config {
    let stale_after = stale_after.to_string();
    Config::parse_from([
        "gateway",
        "--domain=chutes.localhost",
        "--certificates=.",
        "--redis-url",
        redis_url,
        "--api-upstream=127.0.0.1:1",
        "--control-url",
        control_url,
        "--internal-credential",
        CREDENTIAL,
        "--directory-key",
        DIRECTORY_KEY,
        "--call-key-seed",
        DIRECTORY_KEY,
        "--session-public-key",
        DIRECTORY_KEY,
        "--log-folder=.",
        "--stale-after",
        &stale_after,
    ])
}
