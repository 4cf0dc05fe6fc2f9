//! The body of an answer over HTTP/2, which waits in this process until its connection has the turn and the room.

use std::future::poll_fn;
use std::time::Duration;

use bytes::Bytes;
use h2::SendStream;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::write_body;
use tokio::time::timeout;

use super::downstream::{Gone, Reach};
use crate::edge;

/// A body that is being sent.
pub(super) struct Body {
    stream: SendStream<Bytes>,
    /// What of it has left this process.
    answer: edge::Answer,
    /// Bytes given to the connection, or about to be.
    given: u64,
    ended: bool,
    /// How long the client may take none of it.
    stall: Option<Duration>,
}

impl Body {
    /// Takes the body of an answer whose head was written.
    ///
    /// # Errors
    /// When the client went away.
    pub(super) fn of(session: &mut ServerSession) -> Result<Self, Gone> {
        let ServerSession::H2(http2) = session else { return Err(Gone) };
        let stall = http2.get_write_timeout();
        let stream = http2.take_response_body_writer().ok_or(Gone)?;
        let answer = edge::follow(session, stream.stream_id().into()).ok_or(Gone)?;
        Ok(Self { stream, answer, given: 0, ended: false, stall })
    }

    /// Gives the connection a part of it.
    pub(super) async fn write(&mut self, piece: Bytes) -> Result<(), Gone> {
        // Also of a write that fails a part may have been given.
        self.given += piece.len() as u64;
        write_body(&mut self.stream, piece, false, self.stall).await.map_err(|_| Gone)
    }

    /// Ends it.
    pub(super) fn end(&mut self) -> Result<(), Gone> {
        self.ended = true;
        self.stream.send_data(Bytes::new(), true).map_err(|_| Gone)
    }

    /// Waits until all that was given has left this process.
    pub(super) async fn sent(&mut self) -> Result<(), Gone> {
        let stall = self.stall.unwrap_or(Duration::MAX);
        let sent = async {
            tokio::select! {
                biased;
                sent = self.answer.has(self.given, self.ended) => sent,
                _ = poll_fn(|context| self.stream.poll_reset(context)) => false,
            }
        };
        if timeout(stall, sent).await.unwrap_or(false) { Ok(()) } else { Err(Gone) }
    }

    /// How much of what was given has left this process by now.
    pub(super) fn reach(&self) -> Reach {
        match self.answer.bytes() {
            sent if sent >= self.given => Reach::All,
            0 => Reach::None,
            _ => Reach::Part,
        }
    }

    /// Ends when the client takes back its request or goes away, not before.
    pub(super) async fn left(&mut self) {
        // An error says that the connection has ended.
        let _ = poll_fn(|context| self.stream.poll_reset(context)).await;
    }
}
