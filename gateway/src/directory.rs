//! The directory in force: which chutes there are, who may call them, where they run.

mod feed;
mod routes;

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use protocol::directory::Header;
use protocol::sealing::DirectoryKey;
use tokio::sync::Notify;

pub use self::routes::{ChuteRoute, Routes, Target};
use crate::clock::Clock;
use crate::config::Config;
use crate::metrics::Metrics;

/// Holds the last good snapshot; it serves on while Redis is away.
pub struct Directory {
    client: redis::Client,
    key: DirectoryKey,
    clock: Clock,
    metrics: Arc<Metrics>,
    in_force: ArcSwapOption<InForce>,
    /// Set off when control says that there is a new snapshot.
    changed: Arc<Notify>,
}

/// A snapshot that was taken over.
struct InForce {
    /// Its header line as it stood.
    line: String,
    header: Header,
    routes: Arc<Routes>,
}

impl Directory {
    /// An empty one; [`Directory::follow`] has to run for it to fill.
    ///
    /// # Errors
    /// When the Redis URL does not ask for RESP3, or the directory key is none.
    pub fn new(config: &Config, clock: Clock, metrics: Arc<Metrics>) -> anyhow::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            client: crate::principals::client(&config.redis_url)?,
            key: DirectoryKey::from_hex(config.directory_key.reveal())?,
            clock,
            metrics,
            in_force: ArcSwapOption::empty(),
            changed: Arc::default(),
        }))
    }

    /// What to route by; none before the first snapshot.
    #[must_use]
    pub fn current(&self) -> Option<Arc<Routes>> {
        self.in_force.load().as_ref().map(|in_force| Arc::clone(&in_force.routes))
    }
}
