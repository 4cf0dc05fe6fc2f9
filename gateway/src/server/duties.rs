//! What goes on beside requests, for as long as the program runs.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use pingora::server::{Server, ShutdownWatch};

use crate::call::place::Places;
use crate::config::Config;
use crate::directory::Directory;
use crate::lease::{Instances, Loads};
use crate::metrics::Metrics;
use crate::usage;

use super::parts::Parts;

/// How often metrics say how instances stand.
const LOOK: Duration = Duration::from_secs(1);
/// Such looks after which what is known of instances and chutes that are gone is forgotten.
const FORGET: u32 = 30;
/// How long a duty that ships records may take to finish when it is told to stop.
const CLOSE_LOG: Duration = Duration::from_secs(1);

impl Parts {
    /// Has a next process take over when it asks.
    pub(super) fn add_upgrade(&self, server: &mut Server) {
        let (upgrade, lifecycle, missing) = (self.upgrade.clone(), self.lifecycle.clone(), self.missing());
        server.add_service(self.lifecycle.duty("upgrade", move |end| {
            let (upgrade, lifecycle, missing) = (upgrade.clone(), lifecycle.clone(), missing.clone());
            async move { upgrade.run(&lifecycle, missing, end).await }
        }));
    }

    /// Everything that goes on beside requests.
    ///
    /// # Errors
    /// When the Redis address cannot be read.
    pub(super) fn add_duties(&self, server: &mut Server, config: &Config) -> anyhow::Result<()> {
        let lifecycle = &self.lifecycle;
        let redis = redis::Client::open(config.redis_url.as_str()).context("reading the Redis address")?;
        let record = Arc::new(usage::Service::new(&self.log, redis, CLOSE_LOG));
        server.add_service(lifecycle.duty("record", move |stop| {
            let record = record.clone();
            async move { record.run(stop).await }
        }));
        let directory = self.directory.clone();
        server.add_service(lifecycle.duty("directory", move |stop| until(stop, directory.clone().follow())));
        let principals = self.principals.clone();
        server.add_service(lifecycle.duty("principals", move |stop| until(stop, principals.clone().follow())));
        let answers = self.answers.clone();
        server.add_service(lifecycle.duty("answers", move |stop| {
            let answers = answers.clone();
            async move { answers.run(stop).await }
        }));
        let memory = self.memory.clone();
        server.add_service(lifecycle.duty("memory", move |stop| until(stop, memory.clone().follow())));
        let certificates = self.certificates.clone();
        server.add_service(lifecycle.duty("certificates", move |stop| certificates.clone().follow(stop)));
        let reporter = self.reporter.clone();
        server.add_service(lifecycle.duty("reports", move |stop| reporter.clone().run(stop)));
        let desk = self.desk.clone();
        server.add_service(lifecycle.duty("leases", move |stop| desk.clone().run(stop)));
        let (limits, quota, clock) = (self.limits.clone(), self.quota.clone(), self.clock);
        let (places, pool, directory) = (self.places.clone(), self.pool.clone(), self.directory.clone());
        let (slots, loads, metrics) = (self.slots.clone(), self.loads.clone(), self.metrics.clone());
        server.add_service(lifecycle.duty("sweep", move |stop| {
            let known = (slots.clone(), loads.clone(), metrics.clone());
            let instances = look_after_instances(places.clone(), known, directory.clone());
            let pool = pool.clone().sweep_always(directory.clone());
            let (limits, quota) = (limits.clone().sweep_always(), quota.clone());
            let sweeps = (limits, quota.clone().sweep_always(clock), quota.recount_always(), instances, pool);
            until(stop, async move {
                tokio::join!(sweeps.0, sweeps.1, sweeps.2, sweeps.3, sweeps.4);
            })
        }));
        Ok(())
    }
}

/// Runs a task that needs no flushing until told to stop.
async fn until(mut stop: ShutdownWatch, task: impl Future<Output = ()>) {
    tokio::select! {
        // An error means that nobody is left to tell us to stop.
        _ = stop.wait_for(|stop| *stop) => {}
        () = task => {}
    }
}

/// Shows how instances stand and forgets those that are gone, for as long as it is polled.
async fn look_after_instances(
    places: Arc<Places>,
    (slots, loads, metrics): (Arc<Instances>, Arc<Loads>, Arc<Metrics>),
    directory: Arc<Directory>,
) {
    loop {
        for _ in 0..FORGET {
            places.publish();
            tokio::time::sleep(LOOK).await;
        }
        slots.sweep();
        if let Some(routes) = directory.current() {
            places.keep(&routes);
            loads.keep(|chute| routes.has_chute(chute));
            metrics.chutes.keep(|chute| routes.has_chute(chute));
        }
    }
}
