//! Keeps the log of this process durable and its reserve full.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use protocol::record::log::Log;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{error, info};

use super::Shared;
use super::disk::Files;

/// How long a record waits for the disk, about.
const SYNC: Duration = Duration::from_millis(10);

/// How long after a failure room for a new segment is sought again.
const RETRY: Duration = Duration::from_secs(1);

/// Runs until dropped.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut ticks = interval(SYNC);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut refill_at = Instant::now();
    let mut syncing = Trouble { what: "sync the record log", present: false };
    let mut refilling = Trouble { what: "extend the record log", present: false };
    loop {
        ticks.tick().await;
        if shared.log.is_dirty() {
            let synced = blocking(&shared, Log::sync).await;
            shared.metrics.record.sync_failures.inc_by(u64::from(synced.is_err()));
            // Also after a failure: what was synced before it may be read.
            shared.durable.notify_one();
            syncing.note(synced);
        }
        if shared.log.lacks_spare() && Instant::now() >= refill_at {
            let refilled = blocking(&shared, Log::refill).await;
            refill_at = Instant::now() + if refilled.is_ok() { Duration::ZERO } else { RETRY };
            refilling.note(refilled);
        }
        shared.metrics.record.spares.set(i64::try_from(shared.log.spares()).unwrap_or(i64::MAX));
        shared.metrics.record.writable.set(i64::from(shared.log.writable()));
    }
}

async fn blocking(shared: &Arc<Shared>, act: fn(&Log<Files>) -> io::Result<()>) -> io::Result<()> {
    let shared = Arc::clone(shared);
    spawn_blocking(move || act(&shared.log)).await.map_err(io::Error::other)?
}

/// A failure that may last: its beginning and its end are logged.
struct Trouble {
    what: &'static str,
    present: bool,
}

impl Trouble {
    fn note(&mut self, result: io::Result<()>) {
        match (&result, self.present) {
            (Err(error), false) => error!(%error, "cannot {}", self.what),
            (Ok(()), true) => info!("can {} again", self.what),
            (Err(_), true) | (Ok(()), false) => {}
        }
        self.present = result.is_err();
    }
}
