//! Makes a call that comes with an `Idempotency-Key` once, and answers whoever repeats it with the same answer.

mod entry;
mod link;
mod room;
mod settling;
mod store;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use std::time::Duration;

pub use self::entry::Answer;
pub use self::room::{Full, Owner, Room, Share};
pub use self::store::{Answers, Asked, Claim, Found, Settings};
use crate::refusal::Refusal;

/// The client's name for a call that must not be made twice.
const HEADER: HeaderName = HeaderName::from_static("idempotency-key");
/// Stands on an answer that was given before.
pub const REPLAYED: (HeaderName, HeaderValue) =
    (HeaderName::from_static("idempotent-replayed"), HeaderValue::from_static("true"));
/// Longest key.
const LONGEST: usize = 255;
/// When a client may ask again for a call that still runs.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// Why a call that was made before is neither made nor answered again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// The key was used for another request.
    OtherRequest,
    /// The first call still runs.
    InFlight,
    /// The first call was delivered, all or in part, but its answer was not kept.
    NotKept,
}

impl Again {
    /// The status the client gets.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            Self::OtherRequest => StatusCode::UNPROCESSABLE_ENTITY,
            Self::InFlight => StatusCode::CONFLICT,
            Self::NotKept => StatusCode::GONE,
        }
    }

    /// The closed code.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::OtherRequest => "idempotency_key_reused",
            Self::InFlight => "idempotency_key_in_use",
            Self::NotKept => "answer_not_kept",
        }
    }

    /// How long the client should wait before it tries again.
    #[must_use]
    pub fn retry_after(self) -> Option<Duration> {
        match self {
            Self::InFlight => Some(ASK_AGAIN),
            Self::OtherRequest | Self::NotKept => None,
        }
    }

    /// What the client reads.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::OtherRequest => "this Idempotency-Key was used for another request",
            Self::InFlight => "the call with this Idempotency-Key still runs, ask again for its answer",
            Self::NotKept => {
                "the call with this Idempotency-Key was made and billed, but its answer was too large, one too many or \
                 broken off and is not kept; use another key to make it again"
            }
        }
    }
}

impl Full {
    /// The status the client gets.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self.whose {
            Owner::User => StatusCode::TOO_MANY_REQUESTS,
            Owner::All => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// How long the client should wait before it tries again: whole seconds, after which some room is free.
    #[must_use]
    pub fn retry_after(self) -> Duration {
        self.free_in.map_or(ASK_AGAIN, |free_in| Duration::from_secs(free_in.as_secs() + 1))
    }

    /// What the client reads.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self.whose {
            Owner::User => {
                "as many answers to your calls with an Idempotency-Key are kept or given again as there may be of one user"
            }
            Owner::All => {
                "as many answers to calls with an Idempotency-Key are kept or given again as there is room for"
            }
        }
    }
}

/// The key that a request names, if it names one.
///
/// # Errors
/// When it names more than one, or one that is none.
pub fn key(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    let mut keys = headers.get_all(HEADER).iter();
    let Some(key) = keys.next() else { return Ok(None) };
    let malformed =
        || Refusal::BadRequest(format!("Idempotency-Key must be one text of 1 to {LONGEST} visible letters"));
    let text = key.to_str().map_err(|_| malformed())?;
    let good = (1..=LONGEST).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    if keys.next().is_some() || !good { Err(malformed()) } else { Ok(Some(text)) }
}

#[cfg(test)]
mod tests;
