//! Tells control about instances that no longer understand us.

use std::sync::Arc;
use std::time::Duration;

use pingora::server::ShutdownWatch;
use protocol::keys::Key;
use protocol::usage::Strike;
use redis::streams::StreamMaxlen;
use tokio::sync::Mutex;
use tokio::sync::mpsc;
use tracing::warn;

/// Reports that wait for Redis; more are dropped, since a failing instance is reported again.
const WAITING: usize = 1024;
/// Entries kept in the stream, about.
const KEPT: usize = 10_000;
/// How long one report may take.
const LONGEST: Duration = Duration::from_secs(2);

/// Where reports are left.
#[derive(Clone)]
pub struct Strikes(mpsc::Sender<Strike>);

/// What brings them to Redis.
pub struct Reporter {
    client: redis::Client,
    waiting: Mutex<mpsc::Receiver<Strike>>,
}

/// A pair of both.
#[must_use]
pub fn channel(client: redis::Client) -> (Strikes, Arc<Reporter>) {
    let (sender, receiver) = mpsc::channel(WAITING);
    (Strikes(sender), Arc::new(Reporter { client, waiting: Mutex::new(receiver) }))
}

impl Strikes {
    /// Reports an instance, unless too many reports wait.
    pub fn report(&self, strike: Strike) {
        if let Err(error) = self.0.try_send(strike) {
            warn!(%error, "a report about an instance was dropped");
        }
    }
}

impl Reporter {
    /// Sends reports until told to stop.
    pub async fn run(self: Arc<Self>, mut stop: ShutdownWatch) {
        let mut waiting = self.waiting.lock().await;
        loop {
            let strike = tokio::select! {
                // An error means that nobody is left to tell us to stop.
                _ = stop.wait_for(|stop| *stop) => return,
                strike = waiting.recv() => strike,
            };
            let Some(strike) = strike else { return };
            match tokio::time::timeout(LONGEST, self.send(&strike)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => warn!(%error, instance.id = %strike.instance, "cannot report an instance"),
                Err(_) => warn!(instance.id = %strike.instance, "reporting an instance took too long"),
            }
        }
    }

    async fn send(&self, strike: &Strike) -> anyhow::Result<()> {
        let mut connection = self.client.get_multiplexed_async_connection().await?;
        let entry = serde_json::to_string(strike)?;
        let mut command = redis::cmd("XADD");
        command.arg(Key::strikes().as_str()).arg(StreamMaxlen::Approx(KEPT)).arg("*").arg("strike").arg(entry);
        Ok(command.query_async(&mut connection).await?)
    }
}
