//! Answers of an instance on their way out: paced, sealed, cut short when told to, and counted.

use std::sync::Arc;

use bytes::Bytes;
use futures::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::{Response, StatusCode};
use protocol::envelope::Iv;
use protocol::envelope::instance::{seal_json_reply, seal_line, seal_typed_reply};
use protocol::sealing::InstanceKey;
use serde_json::Value;
use tokio::time::{Instant, sleep, sleep_until};

use super::Instance;
use crate::miner::counters::ClosedEarly;
use crate::miner::engine::{Answer, TextStream};
use crate::miner::faults::{Behaviour, Fault};

/// The body of an answer; its error cuts the connection.
pub(super) type Body = UnsyncBoxBody<Bytes, Cut>;

/// The connection is to be cut.
#[derive(Debug, thiserror::Error)]
#[error("cut as told")]
pub(super) struct Cut;

/// A call being answered; dropping it before it is done counts as closed early by the other side.
pub(super) struct Call {
    instance: Arc<Instance>,
    key: InstanceKey,
    iv: Iv,
    fault: Fault,
    behaviour: Behaviour,
    chunks: usize,
    finished: bool,
}

impl Call {
    pub(super) fn new(instance: Arc<Instance>, iv: Iv, fault: Fault, behaviour: Behaviour) -> Self {
        // What was sealed under a key of the moment is garbage to everybody.
        let key = if fault == Fault::Garble { InstanceKey::generate() } else { instance.key.clone() };
        Self { instance, key, iv, fault, behaviour, chunks: 0, finished: false }
    }

    /// Notes that the other side got all it was meant to get.
    pub(super) fn done(mut self) {
        self.finished = true;
    }

    pub(super) async fn answer(mut self, answer: Answer) -> Response<Body> {
        match answer {
            // An engine's error on a stream is an empty stream in SDK 0.3.33; here as a status, as later ones do it.
            Answer::Error(code, detail) => {
                self.done();
                super::refuse(StatusCode::from_u16(code).unwrap_or(StatusCode::BAD_REQUEST), &detail)
            }
            Answer::Json(value, tokens) => {
                self.work(tokens).await;
                let text = seal_json_reply(&self.key, &self.iv, value.to_string().as_bytes());
                self.whole(text, tokens)
            }
            Answer::Typed(media_type, bytes) => {
                self.work(1).await;
                let text = seal_typed_reply(&self.key, &self.iv, 200, media_type, bytes);
                self.whole(text, 1)
            }
            Answer::Stream(_) if self.fault == Fault::EmptyStream => {
                self.finished = true;
                Response::new(full(Bytes::new()))
            }
            Answer::Stream(text) => Response::new(self.stream(text)),
        }
    }

    /// Takes as long as the tokens of an answer in one piece take.
    async fn work(&self, tokens: usize) {
        let tokens = u32::try_from(tokens).unwrap_or(u32::MAX);
        let time = self.behaviour.prefill() + self.behaviour.per_token().saturating_mul(tokens);
        if !time.is_zero() {
            sleep(time).await;
        }
    }

    /// An answer that counts as sent once it is handed over; one that is to break off comes in a piece for each token.
    fn whole(mut self, text: String, tokens: usize) -> Response<Body> {
        let body = match self.fault {
            Fault::DieAfter { .. } | Fault::StallAfter { .. } => self.in_pieces(text, tokens),
            Fault::None | Fault::Garble | Fault::EmptyStream | Fault::Status { .. } | Fault::Hang => {
                self.finished = true;
                full(text.into())
            }
        };
        let mut response = Response::new(body);
        let json = http::HeaderValue::from_static("application/json");
        response.headers_mut().insert(http::header::CONTENT_TYPE, json);
        response
    }

    /// Bytes in so many pieces, each of which counts as a chunk.
    fn in_pieces(self, text: String, pieces: usize) -> Body {
        let size = text.len().div_ceil(pieces.max(1));
        let pieces = stream::unfold((self, Bytes::from(text)), move |(mut call, mut rest)| async move {
            if let Some(end) = call.interruption().await {
                return Some((Err(end), (call, rest)));
            }
            if rest.is_empty() {
                call.done();
                return None;
            }
            call.chunks += 1;
            let piece = rest.split_to(size.min(rest.len()));
            Some((Ok(Frame::data(piece)), (call, rest)))
        });
        BodyExt::boxed_unsync(StreamBody::new(pieces))
    }

    /// A line per piece, each piece a line of the engine's stream: the event, then the blank line.
    fn stream(self, text: TextStream) -> Body {
        let start = Instant::now() + self.behaviour.prefill();
        let events = stream::unfold((self, text, start), |(mut call, mut text, due)| async move {
            sleep_until(due).await;
            if let Some(end) = call.interruption().await {
                return Some((Err(end), (call, text, due)));
            }
            let Some(event) = text.next_event() else {
                call.done();
                return None;
            };
            let mut next = due;
            if event.token {
                call.chunks += 1;
                next += call.behaviour.per_token();
            }
            let lines = [format!("data: {}\n", event.data), "\n".to_owned()];
            let sealed: String = lines.iter().map(|line| seal_line(&call.key, &call.iv, line.as_bytes())).collect();
            Some((Ok(Frame::data(Bytes::from(sealed))), (call, text, next)))
        });
        BodyExt::boxed_unsync(StreamBody::new(events))
    }

    /// Cuts or stalls the answer once it has sent what the fault lets it.
    async fn interruption(&mut self) -> Option<Cut> {
        match self.fault {
            Fault::DieAfter { chunks } if self.chunks >= chunks => {
                self.finished = true;
                Some(Cut)
            }
            Fault::StallAfter { chunks } if self.chunks >= chunks => {
                self.instance.with(|state| state.counters.stalled += 1);
                std::future::pending().await
            }
            Fault::None
            | Fault::Status { .. }
            | Fault::Hang
            | Fault::EmptyStream
            | Fault::DieAfter { .. }
            | Fault::StallAfter { .. }
            | Fault::Garble => None,
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let closed = ClosedEarly { at_us: crate::clock::now().timestamp_micros(), chunks: self.chunks };
        self.instance.with(|state| {
            state.counters.in_flight = state.counters.in_flight.saturating_sub(1);
            if self.finished {
                state.counters.completed += 1;
            } else {
                state.counters.close_early(closed);
            }
        });
    }
}

/// An answer in clear, as the SDK gives its errors.
pub(super) fn plain(status: StatusCode, body: &Value) -> Response<Body> {
    let mut response = Response::new(full(body.to_string().into()));
    *response.status_mut() = status;
    let json = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(http::header::CONTENT_TYPE, json);
    response
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}
