//! Relays a stream that has begun, until it ends on one side or the other.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use tokio::task::yield_now;

use super::downstream::{Downstream, Gone};
use super::flow::Flow;
use super::line::Line;
use super::upstream::Answer;
use crate::instance::stream::Lines;
use crate::instance::verdict::Failure;
use crate::usage::meter::Meter;

/// Pieces that are there at once are joined into one write up to about this size.
const JOINED: usize = 16 << 10;

/// An instance's stream, opened and counted as it comes.
pub(super) struct Relay<A> {
    answer: A,
    lines: Lines,
    meter: Meter,
    flow: Flow,
    started: Instant,
    ended: bool,
    /// Whether there may have been more at once than was taken.
    is_behind: bool,
    /// A failure behind pieces that the client still gets; such a stream has not ended.
    failed: Option<Failure>,
}

/// How a relayed stream ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The client has all of it.
    Whole,
    /// The client went away.
    Gone,
    /// The instance or the way to it failed.
    Failed(Failure),
}

impl<A: Answer> Relay<A> {
    /// A stream whose answer has begun; times count from `started`.
    pub(super) fn new(answer: A, lines: Lines, meter: Meter, started: Instant) -> Self {
        Self { answer, lines, meter, flow: Flow::default(), started, ended: false, is_behind: false, failed: None }
    }

    /// What was counted so far.
    pub(super) fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Whether the instance has said its last.
    pub(super) fn is_ended(&self) -> bool {
        self.ended
    }

    /// Waits for more of the stream; what of it the client gets, which may be nothing. May be dropped while pending and
    /// called again.
    ///
    /// # Errors
    /// When the stream breaks off or cannot be read.
    pub(super) async fn next(&mut self) -> Result<Bytes, Failure> {
        if let Some(failure) = self.failed.take() {
            return Err(failure);
        }
        // A stream that is there faster than it is relayed leaves others their turn.
        if std::mem::take(&mut self.is_behind) {
            yield_now().await;
        }
        self.flow.waits(Instant::now());
        let mut opened = Vec::new();
        let mut size = 0;
        let mut piece = self.answer.piece().await;
        let result = loop {
            match piece {
                Ok(Some(bytes)) => {
                    size += bytes.len();
                    if self.lines.push(&bytes, &mut opened).is_err() {
                        break Err(Failure::Garbled);
                    }
                }
                Ok(None) => {
                    // One that ends within a line has not said its last.
                    self.ended = self.lines.end().is_ok();
                    break if self.ended { Ok(()) } else { Err(Failure::Garbled) };
                }
                Err(failure) => break Err(failure),
            }
            if size >= JOINED {
                self.is_behind = true;
                break Ok(());
            }
            match self.answer.piece().now_or_never() {
                Some(more) => piece = more,
                None => break Ok(()),
            }
        };
        let shown = self.count(&opened);
        self.flow.came(self.meter.counters().chunks, Instant::now());
        match result {
            Err(failure) if shown.is_empty() => return Err(failure),
            Err(failure) => self.failed = Some(failure),
            Ok(()) => {}
        }
        Ok(shown)
    }

    /// Sends `first` and all that follows; `note` hears of each piece before the client does, whether that has left, and
    /// of the time of a chunk now and then.
    pub(super) async fn run(
        &mut self,
        line: &mut Line<'_, impl Downstream>,
        first: Bytes,
        idle: Duration,
        note: &mut (impl FnMut(&Meter, bool, Option<Duration>) + Send),
    ) -> Ended {
        let mut shown = first;
        loop {
            if !shown.is_empty() {
                // What is counted is never ahead of what the client is sure to get by more than one write.
                if line.client.sent().await.is_err() {
                    return Ended::Gone;
                }
                note(&self.meter, line.client.has_left(), self.flow.pace());
                if line.write(shown).await.is_err() {
                    return Ended::Gone;
                }
            }
            if self.ended {
                return if line.end().await.is_ok() { Ended::Whole } else { Ended::Gone };
            }
            shown = match line.wait(tokio::time::timeout(idle, self.next())).await {
                Ok(Ok(Ok(shown))) => shown,
                Ok(Ok(Err(failure))) => return Ended::Failed(failure),
                Ok(Err(_)) => return Ended::Failed(Failure::Timeout),
                Err(Gone) => return Ended::Gone,
            };
        }
    }

    /// Counts opened pieces; what of them the client gets, as one piece.
    fn count(&mut self, opened: &[Bytes]) -> Bytes {
        let at = self.started.elapsed();
        let mut shown: Vec<Bytes> = opened.iter().map(|piece| self.meter.push(piece, at)).collect();
        if self.ended {
            shown.push(self.meter.end(at));
        }
        shown.retain(|piece| !piece.is_empty());
        match shown.as_slice() {
            [] => Bytes::new(),
            [one] => one.clone(),
            many => many.iter().flat_map(|piece| piece.iter().copied()).collect::<BytesMut>().freeze(),
        }
    }

    /// Gives the connection of a stream that ended well back for the next call.
    pub(super) async fn keep(self) {
        self.answer.keep().await;
    }
}

#[cfg(test)]
mod tests;
