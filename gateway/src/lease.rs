//! Slots of limits that all gateways share: asked of Redis ahead of need, and at once where a call waits for one.

mod desk;
mod instances;
mod link;
mod loads;
mod store;

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::NaiveDate;
use protocol::ids::{ChuteId, InstanceId, UserId};
use protocol::keys::Key;
use protocol::lease::holding::Now;
use protocol::lease::{Answer, Ask, Redis, SETTLE, Terms};
use protocol::principal::Bucket;
use tokio::sync::{mpsc, oneshot};

pub use self::desk::Desk;
pub use self::instances::{Instances, Slot};
use self::link::Link;
pub use self::loads::{Attempt, Loads};
use crate::metrics::{Limit, Metrics};

/// Questions that wait for the desk. One that finds no room is not asked: its call is turned away, or it comes again.
const WAITING: usize = 16_384;
/// How often one call asks at most: what came for it may be taken by another.
const ROUNDS: usize = 32;
/// How long a call waits before it asks again after the connection broke.
const BROKEN: Duration = Duration::from_millis(50);

/// A limit that gateways share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// Calls per minute of a user, on one chute or on all.
    Rate(UserId, Option<ChuteId>),
    /// Calls at once of a user, on one chute or on all.
    AtOnce(UserId, Option<ChuteId>),
    /// A daily allowance.
    Quota(UserId, Bucket, NaiveDate),
    /// Places on an instance.
    Instance(InstanceId),
}

/// When something is decided, and whether Redis is there.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Time since the start of the process.
    pub time: Duration,
    /// Whether Redis is there.
    pub redis: Redis,
    /// Gateways alive when Redis was last heard.
    pub gateways: u32,
}

/// Where slots are asked for.
pub struct Leases {
    since: Instant,
    link: Link,
    questions: mpsc::Sender<Question>,
    metrics: Arc<Metrics>,
}

/// A question to Redis, perhaps with a call that waits for the answer.
struct Question {
    subjects: Vec<Subject>,
    answered: Option<oneshot::Sender<()>>,
}

/// Who keeps the holdings of some limits.
pub trait Book: Send + Sync {
    /// What to ask of a limit; none if nothing is known of it any more.
    fn ask(&self, subject: &Subject, waiting: u64, moment: Moment) -> Option<Ask>;

    /// The answer, or that there was none.
    fn answer(&self, subject: &Subject, asked: &Ask, answer: Option<&Answer>, moment: Moment);

    /// Names the limits for which a question is due; with `all`, each of which something is held.
    fn survey(&self, all: bool, moment: Moment, survey: &mut Survey);

    /// Redis may have given what is kept ready to others.
    fn lapse(&self);

    /// Gives up what is kept ready, because the gateway stops.
    fn close(&self);
}

/// What a look at all holdings found.
#[derive(Debug, Default)]
pub struct Survey {
    /// Limits for which a question is due.
    pub due: Vec<Subject>,
    /// Slots kept ready.
    pub ready: u64,
    /// Slots in use.
    pub used: u64,
}

impl Leases {
    /// Leases that hold for `lifetime` without a word from Redis, and where their questions arrive.
    #[must_use]
    pub fn new(lifetime: Duration, metrics: Arc<Metrics>) -> (Arc<Self>, Questions) {
        let (sender, receiver) = mpsc::channel(WAITING);
        let leases = Self { since: Instant::now(), link: Link::new(lifetime), questions: sender, metrics };
        (Arc::new(leases), Questions(receiver))
    }

    /// Now.
    #[must_use]
    pub fn moment(&self) -> Moment {
        let time = self.since.elapsed();
        Moment { time, redis: self.link.redis(time), gateways: self.link.gateways() }
    }

    /// How long one call may ask: until it was answered, or Redis counts as away.
    #[must_use]
    pub fn patience(&self) -> Patience<'_> {
        Patience { leases: self, until: None, rounds: 0 }
    }

    /// Whether it is known how many gateways share the limits.
    #[must_use]
    pub fn are_known(&self) -> bool {
        self.link.is_known()
    }

    /// Asks for a limit in the background; whether that could be done.
    #[must_use]
    pub fn nudge(&self, subject: Subject) -> bool {
        self.questions.try_send(Question { subjects: vec![subject], answered: None }).is_ok()
    }

    /// Waits for a Redis that is there but has not settled yet; whether it has.
    pub async fn settled(&self) -> bool {
        self.link.is_settling(self.since.elapsed()) && self.link.wait(SETTLE + self.link.lifetime()).await
    }

    /// Counts a decision.
    pub fn count(&self, limit: Limit, asked: bool) {
        self.metrics.limits.count_decision(limit, asked);
    }
}

/// What one call has left for asking.
pub struct Patience<'a> {
    leases: &'a Leases,
    /// None until the call asks: few do.
    until: Option<Duration>,
    rounds: usize,
}

/// Where questions arrive.
pub struct Questions(mpsc::Receiver<Question>);

impl Patience<'_> {
    /// Asks for limits of which a call found no slot here, and waits for the answer; false when it should give up.
    pub async fn ask(&mut self, subjects: Vec<Subject>) -> bool {
        self.rounds += 1;
        let now = self.leases.since.elapsed();
        let until = *self.until.get_or_insert(now + 2 * self.leases.link.lifetime());
        if self.rounds > ROUNDS || now >= until {
            return false;
        }
        // Once the lease is over the call may go on without an answer.
        let left = self.leases.link.left(now);
        let (answered, wait) = oneshot::channel();
        if self.leases.questions.try_send(Question { subjects, answered: Some(answered) }).is_err() {
            return false;
        }
        if tokio::time::timeout(left, wait).await.is_ok_and(|answer| answer.is_err()) {
            // The connection broke; another is made, or Redis is away soon.
            tokio::time::sleep(left.min(BROKEN)).await;
        }
        true
    }

    /// Whether the call has asked.
    #[must_use]
    pub fn has_asked(&self) -> bool {
        self.rounds > 0
    }
}

impl Moment {
    /// With the rules of one limit.
    #[must_use]
    pub fn with(self, terms: Terms) -> Now {
        Now { terms, time: self.time, redis: self.redis, gateways: self.gateways }
    }
}

impl Subject {
    /// Where its claims are.
    pub(crate) fn key(&self) -> Key {
        match *self {
            Self::Rate(user, chute) => Key::rate_lease(user, chute),
            Self::AtOnce(user, chute) => Key::at_once_lease(user, chute),
            Self::Quota(user, bucket, day) => Key::quota_lease(user, bucket, day),
            Self::Instance(instance) => Key::instance_lease(instance),
        }
    }
}

#[cfg(test)]
pub(crate) mod interleavings;
#[cfg(test)]
pub(crate) mod stand_in;
#[cfg(test)]
mod tests;
