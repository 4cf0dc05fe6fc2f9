//! Waits until an instance's answer can be judged: its first piece, all of it, or its failure.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use protocol::envelope::{Opener, Reply};
use tokio::task::spawn_blocking;

use super::HEAVY;
use super::relay::Relay;
use super::upstream::{Answer, Instances};
use crate::balance::Work;
use crate::directory::Target;
use crate::instance::request::Outgoing;
use crate::instance::stream::Lines;
use crate::instance::verdict::Failure;
use crate::usage::meter::{Meter, StreamError};

/// Largest error body that is read and relayed.
const LARGEST_ERROR: usize = 64 << 10;
/// How long an instance may take to say what is wrong.
const LONGEST_ERROR: Duration = Duration::from_secs(5);

/// An answer that goes to the client.
pub(super) enum Opening<A> {
    /// A stream and what of it is there.
    Stream {
        /// The stream.
        relay: Relay<A>,
        /// Its beginning, never empty.
        first: Bytes,
    },
    /// An answer in one piece.
    Whole {
        /// The answer.
        reply: Reply,
        /// What was counted in it.
        meter: Meter,
    },
}

/// An attempt that came to nothing, and the instance's own words if it had any.
pub(super) struct Unopened {
    /// What went wrong.
    pub failure: Failure,
    /// What the instance said.
    pub said: Option<Said>,
}

/// An error in an instance's own words.
pub(super) struct Said {
    /// What it says the body is.
    pub content_type: String,
    /// The body.
    pub body: Bytes,
}

impl<A> Opening<A> {
    /// What the instance has done by now, for a prompt of so many tokens.
    pub(super) fn work(&self, tokens: u64) -> Work {
        match self {
            Self::Stream { .. } => Work::Prefill { tokens },
            Self::Whole { reply, .. } => Work::Whole { bytes: reply.body.len() as u64 },
        }
    }
}

/// Sends a request and reads the answer as far as it must be known before the client is told anything.
///
/// # Errors
/// When there is no answer that the client should get.
pub(super) async fn open<I: Instances>(
    instances: &I,
    target: &Target,
    request: Outgoing,
    meter: Meter,
    started: Instant,
    stream: bool,
    largest: usize,
) -> Result<Opening<I::Answer>, Unopened> {
    let mut answer = instances.send(&target.instance, &request).await?;
    if !answer.status().is_success() {
        return Err(Unopened::status(answer).await);
    }
    if stream {
        return first_piece(Relay::new(answer, Lines::new(request.opener), meter, started)).await;
    }
    let sealed = read(&mut answer, largest).await?;
    let reply = open_reply(request.opener, sealed).await?;
    let mut meter = meter;
    meter.push(&reply.body, started.elapsed());
    answer.keep().await;
    Ok(Opening::Whole { reply, meter })
}

async fn first_piece<A: Answer>(mut relay: Relay<A>) -> Result<Opening<A>, Unopened> {
    loop {
        let first = relay.next().await?;
        if let Some(error) = relay.meter().error() {
            return Err(Unopened::event(error));
        }
        if !first.is_empty() {
            return Ok(Opening::Stream { relay, first });
        }
        if relay.is_ended() {
            relay.keep().await;
            return Err(Failure::EmptyStream.into());
        }
    }
}

/// Opens an answer in one piece; a large one off the threads that relay streams.
async fn open_reply(opener: Opener, sealed: Bytes) -> Result<Reply, Failure> {
    if sealed.len() < HEAVY {
        return opener.open_reply(&sealed).map_err(|_| Failure::Garbled);
    }
    let opening = spawn_blocking(move || opener.open_reply(&sealed));
    opening.await.map_err(|_| Failure::Edge)?.map_err(|_| Failure::Garbled)
}

async fn read(answer: &mut impl Answer, largest: usize) -> Result<Bytes, Failure> {
    let mut body = BytesMut::new();
    while let Some(piece) = answer.piece().await? {
        if body.len() + piece.len() > largest {
            return Err(Failure::Garbled);
        }
        body.extend_from_slice(&piece);
    }
    Ok(body.freeze())
}

impl Unopened {
    /// A status that is no success; its body comes in clear, as an object of JSON.
    async fn status(mut answer: impl Answer) -> Self {
        let code = answer.status().as_u16();
        let read = tokio::time::timeout(LONGEST_ERROR, read(&mut answer, LARGEST_ERROR)).await;
        let Ok(Ok(body)) = read else {
            return Failure::Status { code, detail: None, is_foreign: false }.into();
        };
        let content_type = answer.fields().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let said = Said { content_type: content_type.unwrap_or("application/json").to_owned(), body };
        let json: Option<serde_json::Value> = serde_json::from_slice(&said.body).ok();
        let is_foreign = !json.as_ref().is_some_and(serde_json::Value::is_object);
        let detail = json.and_then(|json| Some(json.get("detail")?.as_str()?.to_owned()));
        answer.keep().await;
        Self { failure: Failure::Status { code, detail, is_foreign }, said: Some(said) }
    }

    /// A stream that begins with an error.
    fn event(error: &StreamError) -> Self {
        let said = Said { content_type: "application/json".into(), body: error.event.clone().into() };
        Self { failure: Failure::ErrorEvent { code: error.code }, said: Some(said) }
    }
}

impl Said {
    /// The sentence in it that says what is wrong, in the form of any engine.
    pub(super) fn message(&self) -> Option<String> {
        let json: serde_json::Value = serde_json::from_slice(&self.body).ok()?;
        let places = ["/error/message", "/message", "/detail"];
        places.iter().find_map(|place| Some(json.pointer(place)?.as_str()?.to_owned()))
    }
}

impl From<Failure> for Unopened {
    fn from(failure: Failure) -> Self {
        Self { failure, said: None }
    }
}
