//! Seals requests to an instance and opens its answers, one variant per generation.
//!
//! The gateway uses [`seal_request`] and the [`Opener`] it gives; [`instance`] is the other side, for the stand-in
//! miner of the tests. Everything from an instance is hostile: what is opened is never larger than what came, and
//! whatever is wrong with it is an [`EnvelopeError`].

mod cipher;
pub mod instance;
mod pickle;
mod sdk03;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use cipher::Iv;

use crate::sealing::InstanceKey;

/// What envelope an instance speaks; a successor is one more variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Generation {
    /// SDK 0.3: AES-128-CBC over body and path, arguments as plain JSON or as pickles.
    #[serde(rename = "sdk-0.3")]
    Sdk03,
}

/// A request as it goes to an instance, by POST.
pub struct SealedRequest {
    /// The whole path: a slash and the sealed one.
    pub path: String,
    /// The sealed body, text.
    pub body: Bytes,
    /// Whether the header `X-Chutes-Serialized: true` goes with it.
    pub serialized: bool,
    /// Opens the answer.
    pub opener: Opener,
}

/// Opens the answer to one request: it holds the instance's key, and the request's IV, which the answer uses again.
#[derive(Clone)]
pub struct Opener {
    generation: Generation,
    key: InstanceKey,
    iv: Iv,
}

/// An answer in one piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// 200 to 599.
    pub status: u16,
    /// What the body is said to be.
    pub content_type: String,
    /// All headers the cord's response had, in the order of their names; they are the miner's words.
    pub headers: Vec<(String, String)>,
    /// The opened body; not checked to be what `content_type` says.
    pub body: Bytes,
}

/// Why something cannot be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    /// The client's body is not JSON that can be passed on.
    #[error("request body is not JSON")]
    Request(#[source] serde_json::Error),
    /// A text is not the hex or base64 it should be.
    #[error("sealed text is not hex or base64")]
    Encoding,
    /// The decrypted bytes are not whole, padded blocks: another key, or damage.
    #[error("sealed bytes cannot be decrypted")]
    Cipher,
    /// The answer is not an envelope.
    #[error("answer is not an envelope")]
    Reply(#[source] serde_json::Error),
    /// The answer's status is not one of a final answer.
    #[error("answer has the status {0}")]
    Status(u64),
}

impl Generation {
    /// Its name in the directory and in Postgres.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sdk03 => "sdk-0.3",
        }
    }
}

impl std::str::FromStr for Generation {
    type Err = UnknownGeneration;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "sdk-0.3" => Ok(Self::Sdk03),
            _ => Err(UnknownGeneration),
        }
    }
}

/// A name that is no generation's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown generation of the envelope")]
pub struct UnknownGeneration;

impl Opener {
    /// Opens one line of a stream, with or without its line end.
    ///
    /// # Errors
    /// When the line was not sealed for this request.
    pub fn open_line(&self, line: &[u8]) -> Result<Bytes, EnvelopeError> {
        match self.generation {
            Generation::Sdk03 => sdk03::open_line(&self.key, &self.iv, line),
        }
    }

    /// Opens an answer in one piece. Errors of an instance come in clear: ask its status first.
    ///
    /// # Errors
    /// When the answer is no envelope, or was not sealed for this request.
    pub fn open_reply(&self, body: &[u8]) -> Result<Reply, EnvelopeError> {
        match self.generation {
            Generation::Sdk03 => sdk03::open_reply(&self.key, &self.iv, body),
        }
    }
}

/// Seals a call of the cord at `path` (with its leading slash).
///
/// `body` is the client's JSON, already validated; no bytes at all mean that there was none. `passthrough` cords get
/// the body as `json=` and the query as `params=` (of a repeated name the last value); all others get the body as
/// their one argument, or none if there was no body, and no query.
///
/// # Errors
/// When the body is not JSON and has to be read.
pub fn seal_request(
    generation: Generation,
    key: &InstanceKey,
    path: &str,
    body: &[u8],
    passthrough: bool,
    query: &[(String, String)],
) -> Result<SealedRequest, EnvelopeError> {
    match generation {
        Generation::Sdk03 => {
            let call = sdk03::Call { path, body, passthrough, query };
            sdk03::seal(key, &call, [cipher::random_iv(), cipher::random_iv()])
        }
    }
}

#[cfg(test)]
mod tests;
