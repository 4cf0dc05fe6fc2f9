//! The stream that answers one call: begun once, told to be alive in its gaps, ended in its own words.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep_until};

use super::downstream::{Downstream, Gone, Head};
use crate::refusal::Refusal;

/// A comment, which no client of an event stream shows to anybody.
const ALIVE: Bytes = Bytes::from_static(b": keepalive\n\n");

/// A client and what it has of the stream.
pub(super) struct Line<'a, D> {
    /// The client, for answers that are no stream.
    pub(super) client: &'a mut D,
    head: Head,
    /// How long the client may hear nothing; none where a comment has no place.
    pulse: Option<Duration>,
    heard: Instant,
    begun: bool,
    tail: Tail,
}

/// The last bytes of a stream of events.
#[derive(Clone, Copy, Debug)]
struct Tail([u8; 3]);

impl<'a, D: Downstream> Line<'a, D> {
    /// A stream that will begin with this head; in an event stream comments fill each gap that lasts for `pulse`.
    pub(super) fn new(client: &'a mut D, head: Head, pulse: Option<Duration>) -> Self {
        Self { client, head, pulse, heard: Instant::now(), begun: false, tail: Tail::START }
    }

    /// Whether the client has its head: then an error can be told only within the stream.
    pub(super) fn is_begun(&self) -> bool {
        self.begun
    }

    /// Begins the stream, unless a comment has done so.
    ///
    /// # Errors
    /// When the client went away.
    pub(super) async fn begin(&mut self) -> Result<(), Gone> {
        if self.begun {
            return Ok(());
        }
        self.begun = true;
        self.client.begin(self.head.clone()).await
    }

    /// Sends a part of what an instance said.
    ///
    /// # Errors
    /// When the client went away.
    pub(super) async fn write(&mut self, piece: Bytes) -> Result<(), Gone> {
        self.tail.follow(&piece);
        self.client.write(piece).await?;
        self.heard = Instant::now();
        Ok(())
    }

    /// Ends the stream, and waits until all of it has left this process.
    ///
    /// # Errors
    /// When the client went away.
    pub(super) async fn end(&mut self) -> Result<(), Gone> {
        self.client.end().await?;
        self.client.sent().await
    }

    /// Waits for something while the client is there, and tells it in the meantime that the call is alive.
    ///
    /// A comment stands only between two events, and one that is begun is written to its end whatever happens.
    ///
    /// # Errors
    /// When the client went away.
    pub(super) async fn wait<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Gone> {
        let mut work = pin!(work);
        loop {
            let due = self.due();
            let pulse = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = self.client.gone() => return Err(Gone),
                done = &mut work => return Ok(done),
                () = pulse => self.tell_alive().await?,
            }
        }
    }

    /// Tells an event stream that the rest will not come, and ends it.
    ///
    /// # Errors
    /// When the client went away.
    pub(super) async fn break_off(&mut self, refusal: &Refusal) -> Result<(), Gone> {
        let separator = if self.tail.is_between_events() { "" } else { "\n\n" };
        self.client.write(format!("{separator}{}", refusal.body().to_stream_event()).into()).await?;
        self.client.end().await
    }

    fn due(&self) -> Option<Instant> {
        self.pulse.filter(|_| self.tail.is_between_events()).map(|pulse| self.heard + pulse)
    }

    async fn tell_alive(&mut self) -> Result<(), Gone> {
        self.begin().await?;
        self.client.remark(ALIVE).await?;
        self.heard = Instant::now();
        Ok(())
    }
}

impl Tail {
    /// Before the first event.
    const START: Self = Self(*b"\n\n\n");

    fn follow(&mut self, piece: &[u8]) {
        let last = &piece[piece.len().saturating_sub(3)..];
        self.0.rotate_left(last.len());
        let kept = self.0.len() - last.len();
        self.0[kept..].copy_from_slice(last);
    }

    /// Whether the last line is an empty one. A line that ends with a bare carriage return counts as open: its line
    /// feed may still come.
    fn is_between_events(self) -> bool {
        self.0.ends_with(b"\n\n") || self.0 == *b"\n\r\n"
    }
}

#[cfg(test)]
mod tests;
