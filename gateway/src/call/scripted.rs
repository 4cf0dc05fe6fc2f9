//! Both sides of a call from a script, for the tests of what lies between.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::downstream::{Downstream, Gone, Head, Reach, Unread};
use super::upstream::Answer;
use crate::instance::verdict::Failure;

/// A client whose body is a list of pieces and who remembers what he got.
#[derive(Default)]
pub(super) struct ScriptedClient {
    pub(super) body: VecDeque<Result<Bytes, Unread>>,
    /// Time before each piece of the body, and before its end.
    pub(super) pace: Duration,
    pub(super) waits: bool,
    pub(super) leaves: bool,
    /// Takes nothing of an answer.
    pub(super) refuses: bool,
    pub(super) written: Vec<Bytes>,
    /// Writes that he is not sure to get, now and at most.
    pub(super) unsent: usize,
    pub(super) most_unsent: usize,
    pub(super) ended: bool,
    pub(super) closes: bool,
}

impl Downstream for ScriptedClient {
    async fn piece(&mut self) -> Result<Option<Bytes>, Unread> {
        if !self.pace.is_zero() {
            tokio::time::sleep(self.pace).await;
        }
        self.body.pop_front().transpose()
    }

    fn is_read(&mut self) -> bool {
        self.body.is_empty()
    }

    fn waits_for_continue(&self) -> bool {
        self.waits
    }

    async fn ask(&mut self) -> Result<(), Gone> {
        self.waits = false;
        Ok(())
    }

    async fn gone(&mut self) {
        if !self.leaves {
            std::future::pending().await
        }
    }

    async fn begin(&mut self, _head: Head) -> Result<(), Gone> {
        Ok(())
    }

    async fn write(&mut self, piece: Bytes) -> Result<(), Gone> {
        if self.refuses {
            return Err(Gone);
        }
        self.written.push(piece);
        self.unsent += 1;
        self.most_unsent = self.most_unsent.max(self.unsent);
        Ok(())
    }

    async fn sent(&mut self) -> Result<(), Gone> {
        self.unsent = 0;
        Ok(())
    }

    fn reach(&mut self) -> Reach {
        if self.refuses { Reach::None } else { Reach::All }
    }

    async fn end(&mut self) -> Result<(), Gone> {
        self.ended = true;
        Ok(())
    }

    async fn cut(&mut self) {
        self.closes = true;
    }

    fn close_after(&mut self) {
        self.closes = true;
    }
}

/// An answer whose pieces are there at once, where the script does not pause.
pub(super) struct ScriptedAnswer {
    pub(super) pieces: VecDeque<Step>,
    pub(super) fields: HeaderMap,
    /// Until when nothing is there.
    pub(super) until: Option<tokio::time::Instant>,
}

/// What an answer does next.
pub(super) enum Step {
    /// A piece is there.
    Piece(String),
    /// Nothing is there until it is asked for once more.
    Pause,
    /// Nothing is there for some time.
    Wait(Duration),
    /// Nothing comes any more.
    Silence,
    /// The answer breaks.
    Fail(Failure),
}

impl Answer for ScriptedAnswer {
    fn status(&self) -> StatusCode {
        StatusCode::OK
    }

    fn fields(&self) -> &HeaderMap {
        &self.fields
    }

    async fn piece(&mut self) -> Result<Option<Bytes>, Failure> {
        if matches!(self.pieces.front(), Some(Step::Pause)) {
            self.pieces.pop_front();
            tokio::task::yield_now().await;
        }
        if let Some(Step::Wait(time)) = self.pieces.front() {
            self.until = Some(tokio::time::Instant::now() + *time);
            self.pieces.pop_front();
        }
        if let Some(until) = self.until {
            tokio::time::sleep_until(until).await;
            self.until = None;
        }
        if matches!(self.pieces.front(), Some(Step::Silence)) {
            std::future::pending::<()>().await;
        }
        match self.pieces.pop_front() {
            Some(Step::Piece(piece)) => Ok(Some(piece.into())),
            Some(Step::Fail(failure)) => Err(failure),
            Some(Step::Pause | Step::Wait(_) | Step::Silence) => std::future::pending().await,
            None => Ok(None),
        }
    }

    async fn keep(self) {}
}
