//! Writes down what came of calls while their clients, who have their answers, go on.

use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use pingora::server::ShutdownWatch;
use protocol::usage::Outcome;
use tokio::sync::{Mutex, mpsc};

use super::entry::Answer;
use super::room::Share;
use super::store::{Answers, Claim, Settlement};

/// Calls over that wait for Redis. Of more nothing is written: their claims run out.
const WAITING: usize = 4096;
/// Of them, so many ask Redis at once.
const AT_ONCE: usize = 64;
/// How long a program that stops goes on trying; less than its duties have to flush.
const LAST_TRIES: Duration = Duration::from_secs(10);

/// The way from calls that are over to what writes that down.
pub(super) struct Waiting {
    sender: mpsc::Sender<Settlement>,
    receiver: Mutex<mpsc::Receiver<Settlement>>,
}

impl Default for Waiting {
    fn default() -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        Self { sender, receiver: Mutex::new(receiver) }
    }
}

impl Answers {
    /// Has written down what came of a claimed call; nobody waits for that.
    pub fn settle(&self, claim: Claim, outcome: Option<Outcome>, recording: Option<(Answer, Share)>) {
        let until = Instant::now() + self.settings.claim;
        if self.waiting.sender.try_send(Settlement { claim, outcome, recording, until }).is_err() {
            self.forgotten();
        }
    }

    /// Writes down what came of calls until told to stop, then what waits yet.
    pub async fn run(&self, stop: ShutdownWatch) {
        let waiting = self.waiting.receiver.lock().await;
        let settlements = stream::unfold((waiting, stop.clone()), async |(mut waiting, mut stop)| {
            let next = tokio::select! {
                biased;
                next = waiting.recv() => next?,
                // An error means that nobody is left to tell us to stop.
                _ = stop.wait_for(|stop| *stop) => return None,
            };
            Some((next, (waiting, stop)))
        });
        tokio::select! {
            () = settlements.for_each_concurrent(AT_ONCE, |settlement| self.write(settlement)) => {}
            () = out_of_time(stop) => tracing::warn!("stopping: redis was not told what came of all calls with an idempotency key"),
        }
    }
}

async fn out_of_time(mut stop: ShutdownWatch) {
    // An error means that nobody is left to tell us to stop.
    let _ = stop.wait_for(|stop| *stop).await;
    tokio::time::sleep(LAST_TRIES).await;
}
