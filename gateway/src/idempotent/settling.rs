//! Writes down what came of calls while their clients, who have their answers, go on.

use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use pingora::server::ShutdownWatch;
use protocol::usage::Outcome;
use tokio::sync::{Mutex, mpsc};
use tokio::time::sleep;

use super::entry::{Answer, remains};
use super::room::Share;
use super::store::{Answers, Claim};

/// Calls over that wait for Redis. Of more nothing is written: their claims run out.
const WAITING: usize = 4096;
/// Of them, so many ask Redis at once.
const AT_ONCE: usize = 64;
/// Pause before Redis is asked once more to keep what stays of a call.
const AGAIN: Duration = Duration::from_millis(500);
/// How long a program that stops goes on trying; less than its duties have to flush.
const LAST_TRIES: Duration = Duration::from_secs(10);

/// What came of a claimed call.
struct Settlement {
    claim: Claim,
    /// Of the attempt whose answer reached the client, if one did.
    outcome: Option<Outcome>,
    /// The answer, if all of it is here.
    recording: Option<(Answer, Share)>,
    /// How long the claim is good.
    until: Instant,
}

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
            () = out_of_time(stop) => {
                tracing::warn!("stopping: what came of some calls with an idempotency key is not in redis");
            }
        }
    }

    /// Writes down what came of a claimed call. While Redis is away it is tried again as long as the claim is good.
    async fn write(&self, settlement: Settlement) {
        let Settlement { claim, outcome, recording, until } = settlement;
        let (kept, recorded) = recording.unzip();
        let remains = remains(outcome, kept);
        let text = match remains {
            // A defect of ours makes nobody pay twice: the claim then stays.
            Some(state) => self.seal(&claim.asked, state).await.unwrap_or_else(|_| claim.running.clone()),
            None => Vec::new(),
        };
        loop {
            match self.replace(&claim, &text, self.settings.keep).await {
                Ok(1..) => break,
                Err(_) if Instant::now() < until => sleep(AGAIN).await,
                Ok(_) | Err(_) => return self.forgotten(),
            }
        }
        if !text.is_empty() {
            let until = Instant::now() + self.settings.keep;
            claim.share.rest(until);
            if let Some(share) = recorded {
                share.rest(until);
            }
        }
    }
}

async fn out_of_time(mut stop: ShutdownWatch) {
    // An error means that nobody is left to tell us to stop.
    let _ = stop.wait_for(|stop| *stop).await;
    sleep(LAST_TRIES).await;
}
