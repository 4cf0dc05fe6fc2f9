//! The background service of the record: keeps the log, adopts those of dead processes, ships all of them.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::adopt::{Adopted, adopt};
use super::folder::Folder;
use super::shipper::Shipper;
use super::{Shared, UsageLog, keeper, volume};

/// How often folders of dead processes are looked for.
const ADOPT: Duration = Duration::from_secs(10);

/// Longest rest between two rounds of the shipper.
const REST: Duration = Duration::from_millis(50);

/// How long a stopping process tries to ship its last records; the rest is adopted by the next one.
const FLUSH: Duration = Duration::from_secs(5);

/// Everything about the record that does not happen in a call.
pub struct Service {
    shared: Arc<Shared>,
    client: redis::Client,
    drain: Duration,
}

impl Service {
    /// Serves this log. `drain` bounds how long a stop waits for calls in flight to end.
    #[must_use]
    pub fn new(log: &UsageLog, client: redis::Client, drain: Duration) -> Self {
        Self { shared: Arc::clone(&log.shared), client, drain }
    }

    /// Runs until told to stop, then until the calls in flight have ended and their records are shipped.
    pub async fn run(&self, shutdown: watch::Receiver<bool>) {
        let (found, adopted) = mpsc::channel(1);
        tokio::select! {
            () = keeper::run(Arc::clone(&self.shared)) => {}
            () = volume::measure(Arc::clone(&self.shared)) => {}
            () = self.adopt(found) => {}
            () = self.ship(adopted, shutdown) => {}
        }
    }

    async fn ship(&self, mut adopted: mpsc::Receiver<Adopted>, mut shutdown: watch::Receiver<bool>) {
        let mut shipper = Shipper::new(Arc::clone(&self.shared), self.client.clone());
        let stopping = async move {
            // A sender that is gone has nobody left to say "stop": that is one, too.
            let _ = shutdown.wait_for(|stop| *stop).await;
            self.drained().await
        };
        tokio::pin!(stopping);
        let flush_until = loop {
            let more = shipper.round().await;
            tokio::select! {
                biased;
                closed = &mut stopping => if closed { break Instant::now() + FLUSH } else { return },
                Some(log) = adopted.recv() => shipper.add(log),
                () = self.shared.durable.notified(), if !more => {}
                () = sleep(REST), if !more => {}
                () = std::future::ready(()), if more => {}
            }
        };
        while !shipper.is_done() && Instant::now() < flush_until {
            if !shipper.round().await {
                sleep(Duration::from_millis(5)).await;
            }
        }
        info!(shipped = shipper.is_done(), "closed the record log");
    }

    /// Waits until no call is in flight and ends the log; false if that takes too long.
    async fn drained(&self) -> bool {
        let until = Instant::now() + self.drain;
        while !self.shared.log.close() {
            if Instant::now() >= until {
                warn!("calls are still in flight; whoever starts next ends their records");
                return false;
            }
            sleep(Duration::from_millis(20)).await;
        }
        true
    }

    async fn adopt(&self, found: mpsc::Sender<Adopted>) {
        loop {
            let root = self.shared.settings.folder.clone();
            let folders = spawn_blocking(move || Folder::list(&root)).await;
            match folders.map_err(std::io::Error::other).flatten() {
                Ok(folders) => {
                    for (writer, folder) in folders {
                        match spawn_blocking(move || adopt(writer, folder)).await.map_err(anyhow::Error::from).flatten()
                        {
                            // The receiver lives as long as this does.
                            Ok(Some(log)) => drop(found.send(log).await),
                            Ok(None) => {}
                            Err(error) => {
                                warn!(writer.id = %writer, error = format!("{error:#}"), "cannot adopt a log")
                            }
                        }
                    }
                }
                Err(error) => warn!(%error, "cannot list the record logs"),
            }
            sleep(ADOPT).await;
        }
    }
}

#[async_trait]
impl BackgroundService for Service {
    async fn start(&self, shutdown: ShutdownWatch) {
        self.run(shutdown).await;
    }
}
