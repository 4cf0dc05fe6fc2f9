//! Judges a failed attempt: who is to blame, whether another instance is tried, what the client is told.

use http::StatusCode;
use protocol::ids::{ChuteId, InstanceId};

use crate::balance::Outcome;
use crate::refusal::Refusal;

/// Attempts of one call at most, each on another instance.
pub const MOST_ATTEMPTS: usize = 5;
/// Attempts that may end in an empty stream.
const MOST_EMPTY: usize = 2;

/// What went wrong on the way to an instance or with its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection.
    Connect,
    /// No answer, or none in the time that an instance has.
    Timeout,
    /// No answer when the time of the call itself was over.
    Patience,
    /// The connection broke before the answer was complete.
    Closed,
    /// A status that is no success.
    Status {
        /// The status.
        code: u16,
        /// The `detail` of the body, where that is a text.
        detail: Option<String>,
        /// Whether the body is no object of JSON, as instances send it: something else answers at their address.
        is_foreign: bool,
    },
    /// A stream that began with an error event, or went on with one.
    ErrorEvent {
        /// The status the event names.
        code: Option<u16>,
    },
    /// A stream that ended before anything came.
    EmptyStream,
    /// An answer that cannot be opened or is not what the cord promises.
    Garbled,
    /// The edge itself could not send.
    Edge,
}

/// Why an attempt failed: stored as its `error_message`, reported to control, and the metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The instance is at its concurrency.
    RateLimit,
    /// The instance refuses what the client sent.
    BadRequest,
    /// The instance has lost its key.
    KeyExchangeRequired,
    /// The instance does not accept our signature.
    Unauthorized,
    /// The instance cannot open the body.
    DecryptionFailed,
    /// The instance cannot open the path.
    BadPath,
    /// The stream had nothing in it.
    EmptyStream,
    /// There was no connection.
    ConnectFailed,
    /// It took too long.
    Timeout,
    /// The connection broke.
    ConnectionClosed,
    /// The instance says that it failed.
    ServerError,
    /// The answer cannot be read.
    GarbledAnswer,
    /// The edge itself could not send.
    EdgeError,
}

/// Whose fault a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Blame {
    /// The client's request.
    Client,
    /// The instance.
    Instance,
    /// The way between.
    Network,
    /// Ourselves: too few instances, or a defect.
    Platform,
}

/// What is done about a failure.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// Why the attempt failed, for the record, the report and the metric.
    pub reason: Reason,
    /// Whose fault it is.
    pub blame: Blame,
    /// What it showed of the instance.
    pub outcome: Outcome,
    /// Whether control is told, because the instance will not work again by itself.
    pub report: bool,
    /// How the call goes on.
    pub next: Next,
}

/// How a call goes on after a failed attempt.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// Another instance is tried; if there is none, [`Attempts::refusal`] says what the client gets.
    Another,
    /// The client gets the instance's own answer, with this status.
    Relay(StatusCode),
    /// The client gets a refusal of ours; as an event, where the answer has begun.
    GiveUp(Refusal),
}

/// The failed attempts of one call.
#[derive(Debug, Default)]
pub struct Attempts {
    failed: Vec<(InstanceId, Reason)>,
}

/// Why no further instance could be picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortage {
    /// Those not tried yet are at their concurrency.
    Busy,
    /// All were tried or fail, or there are none.
    None,
    /// No further attempt may be made, so as not to make an outage worse.
    Spent,
}

impl Blame {
    /// The word that is counted by.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Instance => "instance",
            Self::Network => "network",
            Self::Platform => "platform",
        }
    }
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 13] = [
        Self::RateLimit,
        Self::BadRequest,
        Self::KeyExchangeRequired,
        Self::Unauthorized,
        Self::DecryptionFailed,
        Self::BadPath,
        Self::EmptyStream,
        Self::ConnectFailed,
        Self::Timeout,
        Self::ConnectionClosed,
        Self::ServerError,
        Self::GarbledAnswer,
        Self::EdgeError,
    ];

    /// The word that is stored, reported and counted by.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RateLimit => "RATE_LIMIT",
            Self::BadRequest => "BAD_REQUEST",
            Self::KeyExchangeRequired => "KEY_EXCHANGE_REQUIRED",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::DecryptionFailed => "DECRYPTION_FAILED",
            Self::BadPath => "BAD_PATH",
            Self::EmptyStream => "EMPTY_STREAM",
            Self::ConnectFailed => "CONNECT_FAILED",
            Self::Timeout => "TIMEOUT",
            Self::ConnectionClosed => "CONNECTION_CLOSED",
            Self::ServerError => "SERVER_ERROR",
            Self::GarbledAnswer => "GARBLED_ANSWER",
            Self::EdgeError => "EDGE_ERROR",
        }
    }

    fn of(failure: &Failure) -> Self {
        match failure {
            Failure::Connect => Self::ConnectFailed,
            Failure::Timeout | Failure::Patience => Self::Timeout,
            Failure::Closed => Self::ConnectionClosed,
            Failure::EmptyStream => Self::EmptyStream,
            Failure::Garbled => Self::GarbledAnswer,
            Failure::Edge => Self::EdgeError,
            Failure::ErrorEvent { code: Some(429) } => Self::RateLimit,
            Failure::ErrorEvent { code: Some(400..=499) } => Self::BadRequest,
            Failure::ErrorEvent { code: _ } => Self::ServerError,
            Failure::Status { code, detail, is_foreign } => Self::of_status(*code, detail.as_deref(), *is_foreign),
        }
    }

    fn of_status(code: u16, detail: Option<&str>, is_foreign: bool) -> Self {
        match code {
            401 => Self::Unauthorized,
            408 => Self::Timeout,
            404 if detail.is_some_and(|detail| detail.starts_with("Bad path")) => Self::BadPath,
            426 => Self::KeyExchangeRequired,
            429 => Self::RateLimit,
            451 => Self::DecryptionFailed,
            400..=499 if !is_foreign => Self::BadRequest,
            500..=599 => Self::ServerError,
            _ => Self::GarbledAnswer,
        }
    }

    /// Whose fault it is.
    #[must_use]
    pub fn blame(self) -> Blame {
        match self {
            Self::BadRequest => Blame::Client,
            Self::ConnectFailed | Self::ConnectionClosed => Blame::Network,
            Self::RateLimit | Self::EdgeError => Blame::Platform,
            Self::KeyExchangeRequired
            | Self::Unauthorized
            | Self::DecryptionFailed
            | Self::BadPath
            | Self::EmptyStream
            | Self::Timeout
            | Self::ServerError
            | Self::GarbledAnswer => Blame::Instance,
        }
    }

    /// What it shows of the instance: one that refuses in time works.
    fn outcome(self) -> Outcome {
        match self {
            Self::RateLimit => Outcome::Full,
            Self::BadRequest => Outcome::Works,
            Self::EmptyStream | Self::EdgeError => Outcome::Unknown,
            Self::KeyExchangeRequired
            | Self::Unauthorized
            | Self::DecryptionFailed
            | Self::BadPath
            | Self::ConnectFailed
            | Self::Timeout
            | Self::ConnectionClosed
            | Self::ServerError
            | Self::GarbledAnswer => Outcome::Fails,
        }
    }

    /// Whether the instance and we no longer understand each other.
    fn is_reported(self) -> bool {
        matches!(self, Self::KeyExchangeRequired | Self::Unauthorized | Self::DecryptionFailed | Self::BadPath)
    }

    /// What the client is told when this is why the call ended.
    #[must_use]
    pub fn refusal(self) -> Refusal {
        match self {
            Self::RateLimit => Refusal::AtCapacity,
            Self::BadRequest => Refusal::RefusedByInstance(StatusCode::BAD_REQUEST),
            Self::EmptyStream => Refusal::EmptyAnswer,
            Self::Timeout => Refusal::UpstreamTimeout,
            Self::GarbledAnswer => Refusal::BadAnswer,
            Self::KeyExchangeRequired
            | Self::Unauthorized
            | Self::DecryptionFailed
            | Self::BadPath
            | Self::ConnectFailed
            | Self::ConnectionClosed
            | Self::ServerError => Refusal::Exhausted,
            Self::EdgeError => Refusal::Internal,
        }
    }
}

impl Verdict {
    fn new(failure: &Failure, next: Next) -> Self {
        let reason = Reason::of(failure);
        // An instance that did not have its own time has shown nothing.
        let outcome = if *failure == Failure::Patience { Outcome::Unknown } else { reason.outcome() };
        Self { reason, blame: reason.blame(), outcome, report: reason.is_reported(), next }
    }
}

impl Attempts {
    /// The instances that are not tried again.
    #[must_use]
    pub fn tried(&self) -> Vec<InstanceId> {
        self.failed.iter().map(|(instance, _)| *instance).collect()
    }

    /// Whether the call lost its first instance in the middle of it, and has tried no other.
    #[must_use]
    pub fn are_orphaned(&self) -> bool {
        matches!(self.failed[..], [(_, Reason::ConnectionClosed)])
    }

    /// Whether another attempt may follow the one under way.
    #[must_use]
    pub fn may_go_on(&self) -> bool {
        self.failed.len() + 1 < MOST_ATTEMPTS
    }

    /// Judges an attempt that failed before anything went to the client.
    pub fn failed(&mut self, instance: InstanceId, failure: &Failure) -> Verdict {
        let reason = Reason::of(failure);
        self.failed.push((instance, reason));
        let next = match failure {
            Failure::Status { code, .. } | Failure::ErrorEvent { code: Some(code) } if reason == Reason::BadRequest => {
                Next::Relay(StatusCode::from_u16(*code).unwrap_or(StatusCode::BAD_REQUEST))
            }
            Failure::Patience => Next::GiveUp(Refusal::UpstreamTimeout),
            _ if self.failed.len() < MOST_ATTEMPTS && self.empty() < MOST_EMPTY => Next::Another,
            _ => Next::GiveUp(self.last_word()),
        };
        Verdict::new(failure, next)
    }

    /// Judges an attempt that failed after the client had its first byte: nothing is tried again.
    #[must_use]
    pub fn interrupted(failure: &Failure) -> Verdict {
        Verdict::new(failure, Next::GiveUp(Reason::of(failure).refusal()))
    }

    /// The instances whose stream was empty: when another one answers the same request, the fault was theirs.
    pub fn empty_ones(&self) -> impl Iterator<Item = InstanceId> {
        self.failed.iter().filter(|(_, reason)| *reason == Reason::EmptyStream).map(|(instance, _)| *instance)
    }

    /// What the client is told when no further instance can be picked.
    #[must_use]
    pub fn refusal(&self, chute: ChuteId, shortage: Shortage) -> Refusal {
        match shortage {
            Shortage::Busy => Refusal::AtCapacity,
            Shortage::None if self.failed.is_empty() => Refusal::NoInstance(chute),
            Shortage::None | Shortage::Spent => self.last_word(),
        }
    }

    /// One reason for all attempts is told as such; of different ones none would be the whole truth.
    fn last_word(&self) -> Refusal {
        if self.empty() >= MOST_EMPTY {
            return Refusal::EmptyAnswer;
        }
        let mut reasons = self.failed.iter().map(|(_, reason)| *reason);
        match reasons.next() {
            Some(first) if reasons.all(|reason| reason == first) => first.refusal(),
            Some(_) | None => Refusal::Exhausted,
        }
    }

    fn empty(&self) -> usize {
        self.empty_ones().count()
    }
}

#[cfg(test)]
mod tests;
