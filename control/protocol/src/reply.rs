//! The error body that clients parse.

use serde::Serialize;
use serde_json::Value;

/// OpenAI's families of errors, which its SDKs branch on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorType {
    /// The request is wrong.
    InvalidRequest,
    /// Nobody is known by these credentials.
    Authentication,
    /// The caller is known but may not.
    Permission,
    /// There is no such thing, or not for this caller.
    NotFound,
    /// Too many calls for now.
    RateLimit,
    /// Nothing left to pay with.
    InsufficientQuota,
    /// Our fault, or an instance's.
    Server,
}

impl ErrorType {
    /// Its name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request_error",
            Self::Authentication => "authentication_error",
            Self::Permission => "permission_error",
            Self::NotFound => "not_found_error",
            Self::RateLimit => "rate_limit_error",
            Self::InsufficientQuota => "insufficient_quota",
            Self::Server => "server_error",
        }
    }
}

/// One error, in the words of our own clients (`detail`) and of OpenAI's (`error`).
#[derive(Clone, Debug, PartialEq)]
pub struct ErrorBody {
    /// What our clients read: a sentence, or an object.
    pub detail: Value,
    /// What OpenAI clients show.
    pub message: String,
    /// Its family.
    pub kind: ErrorType,
    /// Its name within the family, from a closed list.
    pub code: &'static str,
}

/// The `error` object; the order of its fields is the order on the wire.
#[derive(Serialize)]
struct ErrorObject<'a> {
    message: &'a str,
    r#type: &'static str,
    code: &'static str,
    param: (),
}

#[derive(Serialize)]
struct Whole<'a> {
    detail: &'a Value,
    error: ErrorObject<'a>,
}

#[derive(Serialize)]
struct Plain<'a> {
    detail: &'a Value,
}

#[derive(Serialize)]
struct Event<'a> {
    error: ErrorObject<'a>,
}

impl ErrorBody {
    /// The body on call hosts: `{"detail":…,"error":{…}}`.
    #[must_use]
    pub fn to_json(&self) -> String {
        text(&Whole { detail: &self.detail, error: self.error() })
    }

    /// The body on every other host: `{"detail":…}`.
    #[must_use]
    pub fn to_plain_json(&self) -> String {
        text(&Plain { detail: &self.detail })
    }

    /// The event that ends a stream which has already begun: `data: {"error":{…}}` and an empty line.
    #[must_use]
    pub fn to_stream_event(&self) -> String {
        format!("data: {}\n\n", text(&Event { error: self.error() }))
    }

    fn error(&self) -> ErrorObject<'_> {
        ErrorObject { message: &self.message, r#type: self.kind.as_str(), code: self.code, param: () }
    }
}

fn text(body: &impl Serialize) -> String {
    serde_json::to_string(body).expect("plain structs with text keys serialise")
}

#[cfg(test)]
mod tests;
