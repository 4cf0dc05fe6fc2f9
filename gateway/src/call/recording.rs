//! Keeps an answer while a client gets it, and takes the rest of it when the client has left.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use http::HeaderName;
use http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE};
use protocol::headers;
use tokio::time::{Instant, sleep_until};

use super::downstream::{Downstream, Gone, Head, Reach, Unread};
use crate::idempotent::{Answer, Share};

/// Fields that are given again with the answer; others were true only once.
const KEPT: [HeaderName; 4] =
    [CONTENT_TYPE, CONTENT_DISPOSITION, CACHE_CONTROL, HeaderName::from_static(headers::INVOCATION_ID)];

/// A client whose answer is recorded. As long as it is, the client counts as there although it left.
pub(super) struct Recording<'a, D> {
    client: &'a mut D,
    /// What is done before the client gets anything, or without it before its answer counts as given.
    begins: Option<BoxFuture<'a, ()>>,
    /// How long the answer is waited for without the client.
    run_on: Duration,
    largest: usize,
    /// Until when, once the client has left.
    left: Option<Instant>,
    /// None if it would be too large, or the answer was cut.
    tape: Option<Tape>,
}

struct Tape {
    head: Option<Head>,
    body: BytesMut,
    share: Share,
}

impl<'a, D: Downstream> Recording<'a, D> {
    /// Records within `share`, which grows with the answer; `begins` is done before the client gets anything of it, and
    /// before an answer that is kept for a client that left is over.
    pub(super) fn new(
        client: &'a mut D,
        begins: BoxFuture<'a, ()>,
        run_on: Duration,
        largest: usize,
        share: Option<Share>,
    ) -> Self {
        let tape = share.map(|share| Tape { head: None, body: BytesMut::new(), share });
        Self { client, begins: Some(begins), run_on, largest, left: None, tape }
    }

    /// What was recorded, if it is all that was answered.
    pub(super) fn into_answer(self) -> Option<(Answer, Share)> {
        let Tape { head, body, share } = self.tape?;
        let Head { status, fields, length: _ } = head?;
        let fields = fields.into_iter().filter(|(name, _)| KEPT.contains(name)).collect();
        Some((Answer { status, fields, body: body.freeze() }, share))
    }

    /// Goes on without the client where that is of use.
    fn unless_left(&mut self, sent: Result<(), Gone>) -> Result<(), Gone> {
        if sent.is_err() {
            self.left.get_or_insert(Instant::now() + self.run_on);
        }
        if self.left.is_some() && self.tape.is_none() { Err(Gone) } else { Ok(()) }
    }

    /// From now on the call may be paid for, so nobody may make it anew.
    async fn has_begun(&mut self) {
        if let Some(begins) = self.begins.take() {
            begins.await;
        }
    }

    fn record(&mut self, piece: &Bytes) {
        let Some(tape) = &mut self.tape else { return };
        let fits = tape.body.len() + piece.len() <= self.largest;
        if fits && tape.share.grow(piece.len(), std::time::Instant::now()) {
            tape.body.extend_from_slice(piece);
        } else {
            self.tape = None;
        }
    }
}

impl<D: Downstream> Downstream for Recording<'_, D> {
    async fn piece(&mut self) -> Result<Option<Bytes>, Unread> {
        self.client.piece().await
    }

    fn is_read(&mut self) -> bool {
        self.client.is_read()
    }

    fn waits_for_continue(&self) -> bool {
        self.client.waits_for_continue()
    }

    async fn ask(&mut self) -> Result<(), Gone> {
        self.client.ask().await
    }

    async fn gone(&mut self) {
        let until = match self.left {
            Some(until) => until,
            None => {
                self.client.gone().await;
                *self.left.insert(Instant::now() + self.run_on)
            }
        };
        if self.tape.is_some() {
            sleep_until(until).await;
        }
    }

    fn has_left(&self) -> bool {
        self.left.is_some()
    }

    async fn begin(&mut self, head: Head) -> Result<(), Gone> {
        if let Some(tape) = &mut self.tape {
            tape.head = Some(head.clone());
        }
        if self.left.is_some() {
            return self.unless_left(Ok(()));
        }
        self.has_begun().await;
        let sent = self.client.begin(head).await;
        self.unless_left(sent)
    }

    async fn write(&mut self, piece: Bytes) -> Result<(), Gone> {
        self.record(&piece);
        let sent = if self.left.is_none() { self.client.write(piece).await } else { Ok(()) };
        self.unless_left(sent)
    }

    async fn remark(&mut self, comment: Bytes) -> Result<(), Gone> {
        let sent = if self.left.is_none() { self.client.remark(comment).await } else { Ok(()) };
        self.unless_left(sent)
    }

    async fn sent(&mut self) -> Result<(), Gone> {
        let sent = if self.left.is_none() { self.client.sent().await } else { Ok(()) };
        self.unless_left(sent)
    }

    fn reach(&mut self) -> Reach {
        self.client.reach()
    }

    async fn end(&mut self) -> Result<(), Gone> {
        let sent = match self.left {
            None => self.client.end().await,
            Some(_) => {
                // One that only ended its own side must not take what it has for all of the answer.
                self.client.cut().await;
                if self.tape.is_some() {
                    self.has_begun().await;
                }
                Ok(())
            }
        };
        self.unless_left(sent)
    }

    async fn cut(&mut self) {
        self.tape = None;
        self.client.cut().await;
    }

    fn close_after(&mut self) {
        self.client.close_after();
    }
}

#[cfg(test)]
mod tests;
