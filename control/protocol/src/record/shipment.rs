//! The shipper's side of a writer's sequence: what to send next, and from where again.

use std::time::Duration;

#[cfg(test)]
mod tests;

/// How long a mark may stand still below what was sent; doubled each time in vain.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Longest patience.
pub const MAX_PATIENCE: Duration = Duration::from_secs(480);

/// How far one writer's finals are sent and confirmed. Times count from any fixed point and never go back.
#[derive(Debug)]
pub struct Shipment {
    next: u64,
    mark: u64,
    marked: bool,
    server: Option<String>,
    waiting_since: Option<Duration>,
    patience: Duration,
}

impl Default for Shipment {
    fn default() -> Self {
        Self { next: 1, mark: 0, marked: false, server: None, waiting_since: None, patience: PATIENCE }
    }
}

impl Shipment {
    /// A shipment of which this much is known to be confirmed.
    #[must_use]
    pub fn confirmed_up_to(mark: u64) -> Self {
        Self { next: mark + 1, mark, ..Self::default() }
    }

    /// The sequence to send next.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Everything up to here is in Postgres.
    #[must_use]
    pub fn mark(&self) -> u64 {
        self.mark
    }

    /// A connection is there, to the Redis run with this identifier if it says so; a run not seen before may have
    /// lost everything that was sent.
    pub fn connected(&mut self, server: Option<&str>) {
        if server.is_none() || server != self.server.as_deref() {
            self.resend();
        }
        self.server = server.map(str::to_owned);
    }

    /// Redis has taken everything up to this sequence.
    pub fn sent(&mut self, sequence: u64, now: Duration) {
        self.next = self.next.max(sequence + 1);
        if sequence > self.mark {
            self.waiting_since.get_or_insert(now);
        }
    }

    /// The published mark, none if there is none; `last` is the highest sequence given out.
    ///
    /// A mark that falls means a database restored to an earlier time; one that vanishes, an emptied Redis; one that
    /// stands still, entries lost on the way: all above it is sent again.
    pub fn confirmed(&mut self, mark: Option<u64>, last: u64, now: Duration) {
        match mark.map(|mark| mark.min(last)) {
            Some(mark) if mark > self.mark => self.advance(mark, now),
            Some(mark) if mark < self.mark => {
                self.mark = mark;
                self.resend();
            }
            Some(_) => {}
            None if self.marked => self.resend(),
            None => {}
        }
        self.marked = mark.is_some();
        if self.waiting_since.is_some_and(|since| now.saturating_sub(since) >= self.patience) {
            self.patience = (self.patience * 2).min(MAX_PATIENCE);
            self.resend();
        }
    }

    fn advance(&mut self, mark: u64, now: Duration) {
        self.mark = mark;
        self.next = self.next.max(mark + 1);
        self.patience = PATIENCE;
        self.waiting_since = (self.next > mark + 1).then_some(now);
    }

    fn resend(&mut self) {
        self.next = self.mark + 1;
        self.waiting_since = None;
    }
}
