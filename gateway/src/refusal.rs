//! Every reason a call is turned away, with its status, its words and its metric label.

mod blame;

use std::time::Duration;

use chrono::{DateTime, Utc};
use http::StatusCode;
use protocol::reply::{ErrorBody, ErrorType};
use serde_json::{Value, json};

use crate::edge::Largest;
use crate::idempotent::{Again, Full};

/// Whose limit was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Whose {
    /// The caller's own, over all chutes.
    User,
    /// The caller's on this chute.
    Chute,
}

/// What there is too little of at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scarce {
    /// Places for calls in flight.
    Places,
    /// Room for requests to a service of ours.
    Requests,
    /// Room for request bodies.
    Bodies,
    /// Memory.
    Memory,
    /// Processor time.
    Processor,
}

/// Where a rate or concurrency limit stands, for the `X-RateLimit-*` headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Calls per minute allowed.
    pub limit: u32,
    /// Calls left.
    pub remaining: u32,
    /// Whole seconds until the next call is free; 0 while none is taken.
    pub reset: u64,
}

/// Why a call is turned away. The variant is also the `code` of the answer and the label of the metric.
#[derive(Clone, Debug, PartialEq)]
pub enum Refusal {
    /// The host's label names nothing, or nothing the caller may see.
    UnknownChute,
    /// No model of that name, or none the caller may see.
    UnknownModel(String),
    /// No cord has that path and method.
    UnknownCord,
    /// No such page on a public listener.
    UnknownPage,
    /// The path is there, but not for this method.
    MethodNotAllowed(&'static str),
    /// TLS name and host disagree.
    Misdirected,
    /// No credential.
    Unauthenticated,
    /// A credential that is not valid, with what is wrong.
    InvalidCredential(&'static str),
    /// A session token past its time.
    ExpiredSession,
    /// A signature that was used before.
    ReplayedSignature,
    /// A key without the scope to call this chute.
    OutOfScope,
    /// Too many calls per minute.
    RateLimited {
        /// Whose limit.
        whose: Whose,
        /// Where it stands.
        standing: Standing,
    },
    /// Too many calls at once.
    TooManyAtOnce {
        /// Whose limit.
        whose: Whose,
        /// Where it stands.
        standing: Standing,
    },
    /// The daily allowance is used up and there is no balance.
    QuotaExceeded {
        /// Calls allowed per day.
        quota: u64,
        /// Whether it is the chute's own allowance.
        whose: Whose,
        /// The next midnight UTC.
        resets_at: DateTime<Utc>,
        /// Now, to say how long that is.
        now: DateTime<Utc>,
    },
    /// The body is not what this entry point takes.
    BadRequest(String),
    /// An instance refused the request with this status, and its words cannot be passed on.
    RefusedByInstance(StatusCode),
    /// The body is larger than a call may be.
    BodyTooLarge {
        /// Bytes allowed.
        limit: usize,
    },
    /// The client did not send its body in time.
    BodyTimeout,
    /// The request head is larger than one may be.
    HeadTooLarge(Largest),
    /// The client did not send its request head in time.
    HeadTimeout,
    /// There is too little of something at the moment.
    Overloaded(Scarce),
    /// The chute is under maintenance.
    Maintenance,
    /// No instance runs.
    NoInstance(protocol::ids::ChuteId),
    /// Every instance is at its concurrency.
    AtCapacity,
    /// Every attempt failed.
    Exhausted,
    /// Two instances answered with an empty stream.
    EmptyAnswer,
    /// An instance answered with something unreadable, after which no other could be tried.
    BadAnswer,
    /// The instances did not answer in time.
    UpstreamTimeout,
    /// What the edge needs to decide is not there: the directory, principals or the signature store.
    NotReady(&'static str),
    /// A call with an idempotency key was made before.
    Again(Again),
    /// No more answers to calls with an idempotency key can be kept.
    AnswersFull(Full),
    /// The record log cannot be written.
    LogUnwritable,
    /// The host is known but nothing serves it.
    NoService(&'static str),
    /// A service of ours broke off.
    ServiceFailed(&'static str),
    /// A service of ours did not answer in time.
    ServiceTimeout(&'static str),
    /// A defect of ours.
    Internal,
}

impl Refusal {
    /// The status the client gets.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::UnknownChute | Self::UnknownModel(_) | Self::UnknownCord | Self::UnknownPage => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::Unauthenticated | Self::InvalidCredential(_) | Self::ExpiredSession | Self::ReplayedSignature => {
                StatusCode::UNAUTHORIZED
            }
            Self::OutOfScope => StatusCode::FORBIDDEN,
            Self::RateLimited { .. } | Self::TooManyAtOnce { .. } | Self::Maintenance | Self::AtCapacity => {
                StatusCode::TOO_MANY_REQUESTS
            }
            Self::QuotaExceeded { .. } => StatusCode::PAYMENT_REQUIRED,
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::RefusedByInstance(status) => *status,
            Self::Again(again) => again.status(),
            Self::AnswersFull(full) => full.status(),
            Self::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::HeadTooLarge(_) => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::BodyTimeout | Self::HeadTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::NoInstance(_)
            | Self::Overloaded(_)
            | Self::NotReady(_)
            | Self::LogUnwritable
            | Self::NoService(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Exhausted | Self::EmptyAnswer | Self::BadAnswer | Self::ServiceFailed(_) => StatusCode::BAD_GATEWAY,
            Self::UpstreamTimeout | Self::ServiceTimeout(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The closed code: metric label and `error.code`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownChute => "unknown_chute",
            Self::UnknownModel(_) => "model_not_found",
            Self::UnknownCord => "unknown_cord",
            Self::UnknownPage => "unknown_page",
            Self::MethodNotAllowed(_) => "method_not_allowed",
            Self::Misdirected => "misdirected_request",
            Self::Unauthenticated => "unauthenticated",
            Self::InvalidCredential(_) => "invalid_credential",
            Self::ExpiredSession => "expired_session",
            Self::ReplayedSignature => "replayed_signature",
            Self::OutOfScope => "out_of_scope",
            Self::RateLimited { .. } => "rate_limited",
            Self::TooManyAtOnce { .. } => "too_many_at_once",
            Self::QuotaExceeded { .. } => "insufficient_quota",
            Self::BadRequest(_) | Self::RefusedByInstance(_) => "bad_request",
            Self::BodyTooLarge { .. } => "body_too_large",
            Self::BodyTimeout => "body_timeout",
            Self::HeadTooLarge(_) => "head_too_large",
            Self::HeadTimeout => "head_timeout",
            Self::Overloaded(_) => "overloaded",
            Self::Maintenance => "maintenance",
            Self::NoInstance(_) => "no_instance",
            Self::AtCapacity => "at_capacity",
            Self::Exhausted => "exhausted",
            Self::EmptyAnswer => "empty_answer",
            Self::BadAnswer => "bad_answer",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::NotReady(_) => "not_ready",
            Self::Again(again) => again.code(),
            Self::AnswersFull(_) => "answers_full",
            Self::LogUnwritable => "log_unwritable",
            Self::NoService(_) => "no_service",
            Self::ServiceFailed(_) => "service_failed",
            Self::ServiceTimeout(_) => "service_timeout",
            Self::Internal => "internal",
        }
    }

    /// How long the client should wait before it tries again.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { standing, .. } => Some(Duration::from_secs(standing.reset.max(1))),
            Self::QuotaExceeded { resets_at, now, .. } => {
                let seconds = (*resets_at - *now).num_seconds().max(1);
                Some(Duration::from_secs(seconds.unsigned_abs()))
            }
            Self::Maintenance => Some(Duration::from_secs(60)),
            Self::Again(again) => again.retry_after(),
            Self::AnswersFull(full) => Some(full.retry_after()),
            Self::NoInstance(_) | Self::NoService(_) => Some(Duration::from_secs(10)),
            Self::TooManyAtOnce { .. }
            | Self::AtCapacity
            | Self::Overloaded(_)
            | Self::NotReady(_)
            | Self::LogUnwritable => Some(Duration::from_secs(1)),
            Self::UnknownChute
            | Self::UnknownModel(_)
            | Self::UnknownCord
            | Self::UnknownPage
            | Self::MethodNotAllowed(_)
            | Self::Misdirected
            | Self::Unauthenticated
            | Self::InvalidCredential(_)
            | Self::ExpiredSession
            | Self::ReplayedSignature
            | Self::OutOfScope
            | Self::BadRequest(_)
            | Self::RefusedByInstance(_)
            | Self::BodyTooLarge { .. }
            | Self::BodyTimeout
            | Self::HeadTooLarge(_)
            | Self::HeadTimeout
            | Self::Exhausted
            | Self::EmptyAnswer
            | Self::BadAnswer
            | Self::UpstreamTimeout
            | Self::ServiceFailed(_)
            | Self::ServiceTimeout(_)
            | Self::Internal => None,
        }
    }

    /// The method that would have been right.
    #[must_use]
    pub fn allowed_method(&self) -> Option<&'static str> {
        if let Self::MethodNotAllowed(method) = self { Some(method) } else { None }
    }

    /// Where the limit stands that refused the call.
    #[must_use]
    pub fn standing(&self) -> Option<Standing> {
        if let Self::RateLimited { standing, .. } | Self::TooManyAtOnce { standing, .. } = self {
            return Some(*standing);
        }
        None
    }

    /// The body of the answer.
    #[must_use]
    pub fn body(&self) -> ErrorBody {
        ErrorBody { detail: self.detail(), message: self.message(), kind: self.kind(), code: self.code() }
    }

    fn kind(&self) -> ErrorType {
        match self.status() {
            StatusCode::NOT_FOUND => ErrorType::NotFound,
            StatusCode::UNAUTHORIZED => ErrorType::Authentication,
            StatusCode::FORBIDDEN => ErrorType::Permission,
            StatusCode::TOO_MANY_REQUESTS => ErrorType::RateLimit,
            StatusCode::PAYMENT_REQUIRED => ErrorType::InsufficientQuota,
            status if status.is_client_error() => ErrorType::InvalidRequest,
            _ => ErrorType::Server,
        }
    }

    /// Upstream's `detail`: the message, except where clients read an object.
    fn detail(&self) -> Value {
        if let Self::QuotaExceeded { quota, resets_at, .. } = self {
            let mut detail = json!({ "message": self.message() });
            if *quota > 0 {
                detail["quota_reset_timestamp"] = json!(resets_at.to_rfc3339());
            }
            return detail;
        }
        Value::String(self.message())
    }

    fn message(&self) -> String {
        match self {
            Self::UnknownChute => "No matching chute found!".into(),
            Self::UnknownModel(name) => format!("model not found: {name}"),
            Self::UnknownCord => "No matching cord found!".into(),
            Self::UnknownPage => "Not Found".into(),
            Self::MethodNotAllowed(_) => "Method Not Allowed".into(),
            Self::Misdirected => "the Host header and the TLS server name are for different services".into(),
            Self::Unauthenticated => "Authentication required.".into(),
            Self::InvalidCredential(what) => format!("Invalid credential: {what}."),
            Self::ExpiredSession => "Token expired.".into(),
            Self::ReplayedSignature => "This signature was used before; sign each request anew.".into(),
            Self::OutOfScope => "This API key has no scope to invoke this chute.".into(),
            Self::RateLimited { whose, standing } => format!(
                "{} rate limit of {} calls per minute reached, free again in {} s",
                whose.words(),
                standing.limit,
                standing.reset
            ),
            Self::TooManyAtOnce { whose, standing } => {
                format!("{} limit of {} calls at once reached", whose.words(), standing.limit)
            }
            Self::QuotaExceeded { quota, whose, .. } => format!(
                "{} quota of {quota} calls per day exceeded and the account balance is used up, please add balance",
                whose.words()
            ),
            Self::BadRequest(what) => what.clone(),
            Self::RefusedByInstance(status) => {
                format!("the instance refused the request with status {}", status.as_u16())
            }
            Self::BodyTooLarge { limit } => format!("request body is larger than {limit} bytes"),
            Self::BodyTimeout => "the request body did not arrive in time".into(),
            Self::HeadTooLarge(Largest { bytes, fields }) => {
                format!("the request head is larger than {bytes} bytes or has more than {fields} fields")
            }
            Self::HeadTimeout => "the request head did not arrive in time".into(),
            Self::Overloaded(scarce) => format!("{}, try again", scarce.words()),
            Self::Maintenance => "model is under maintenance".into(),
            Self::NoInstance(chute) => format!("No instances available (yet) for chute_id='{chute}'"),
            Self::AtCapacity => "Infrastructure is at maximum capacity, try again later".into(),
            Self::Exhausted => "every available instance failed to answer".into(),
            Self::EmptyAnswer => "the instances answered with an empty stream".into(),
            Self::BadAnswer => "the instance answered with something unreadable".into(),
            Self::UpstreamTimeout => "the instances did not answer in time".into(),
            Self::NotReady(what) => format!("the service is starting or degraded: {what}"),
            Self::Again(again) => again.words().into(),
            Self::AnswersFull(full) => full.words().into(),
            Self::LogUnwritable => "the service cannot record calls at the moment".into(),
            Self::NoService(host) => format!("nothing serves the host {host} at the moment"),
            Self::ServiceFailed(host) => format!("the service behind {host} broke off"),
            Self::ServiceTimeout(host) => format!("the service behind {host} did not answer in time"),
            Self::Internal => "internal error".into(),
        }
    }
}

impl Scarce {
    /// How messages name it.
    fn words(self) -> &'static str {
        match self {
            Self::Places => "too many calls at the moment",
            Self::Requests => "too many requests at once at the moment",
            Self::Bodies => "too many large requests at the moment",
            Self::Memory => "the service is short of memory at the moment",
            Self::Processor => "the service is overloaded at the moment",
        }
    }
}

impl Whose {
    /// How messages name it.
    fn words(self) -> &'static str {
        match self {
            Self::User => "your",
            Self::Chute => "your (on this chute)",
        }
    }
}
