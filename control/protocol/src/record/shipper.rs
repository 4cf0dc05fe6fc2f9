//! Ships durable finals until the ledger has them, and tells that their writers live: a state machine that is told
//! the time and what became of each step, and says what to do next.

use std::io;
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::ids::WriterId;
use crate::record::disk::Disk;
use crate::record::reader::{Batch, Stored};
use crate::record::shipped::{Cursor, Farewell, Located, Shipped};
use crate::usage::{Entry, Written};

/// Entries in the stream above which nothing is added: what is not read stays on disk.
pub const MAX_STREAM: usize = 200_000;

/// How often marks are read.
const MARKS: Duration = Duration::from_millis(250);

/// How often each live writer beats.
const BEAT: Duration = Duration::from_secs(1);

/// How often confirmed segments are looked for.
const SWEEP: Duration = Duration::from_secs(1);

/// Shortest and longest wait before Redis is tried again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Ships the log of this process and those it adopted. Times count from any fixed point and never go back.
#[derive(Debug)]
pub struct Shipper<D> {
    logs: Vec<Shipped<D>>,
    connected: bool,
    /// Entries in the stream, as far as known.
    length: usize,
    failures: u32,
    retry_at: Duration,
    marks_at: Duration,
    beat_at: Duration,
    sweep_at: Duration,
    round: Round,
    sending: Option<Sending>,
}

/// How far the present round is.
#[derive(Debug, Default)]
struct Round {
    /// The log whose turn is next.
    turn: usize,
    beaten: bool,
    more: bool,
}

/// What the entries on their way are.
#[derive(Debug)]
enum Sending {
    Finals { index: usize, next: u64, cursor: Option<Cursor> },
    Beats { farewells: Vec<(usize, Farewell)> },
}

/// What to do next.
#[derive(Debug)]
pub enum Step<D> {
    /// Connect; then [`Shipper::connected`] or [`Shipper::failed`].
    Connect,
    /// Read the published marks of these writers and the stream's length; then [`Shipper::marks`] or
    /// [`Shipper::failed`].
    ReadMarks(Vec<WriterId>),
    /// Read from a log; then [`Shipper::read`].
    Read(usize, Stored<D>, Cursor),
    /// Add these to the stream, in order; then [`Shipper::added`] or [`Shipper::failed`].
    Add(Vec<Entry<Written>>),
    /// Delete in each log what is confirmed up to its mark; then look at [`Shipper::finished`].
    Sweep(Vec<(Stored<D>, u64)>),
    /// Nothing: the round is over, and there is more at once.
    Again,
    /// Wait a little, or until more is durable.
    Rest,
}

impl<D: Disk> Shipper<D> {
    /// Ships this log of a live writer.
    pub fn new(own: Stored<D>, now: Duration) -> Self {
        Self {
            logs: vec![Shipped::new(own, false)],
            connected: false,
            length: 0,
            failures: 0,
            retry_at: now,
            marks_at: now,
            beat_at: now,
            sweep_at: now,
            round: Round::default(),
            sending: None,
        }
    }

    /// Ships this log of a dead writer too.
    pub fn add(&mut self, adopted: Stored<D>, now: Duration) {
        self.logs.push(Shipped::new(adopted, true));
        // Its mark is asked for before anything of it is sent.
        self.marks_at = now;
        self.round = Round { more: self.round.more, ..Round::default() };
    }

    /// What is due; `clock` is what beats speak of.
    pub fn step(&mut self, now: Duration, clock: DateTime<Utc>) -> Step<D> {
        if now >= self.sweep_at {
            self.sweep_at = now + SWEEP;
            return Step::Sweep(self.logs.iter().map(|one| (one.stored.clone(), one.shipment.mark())).collect());
        }
        if !self.connected {
            return if now >= self.retry_at { Step::Connect } else { Step::Rest };
        }
        if now >= self.marks_at && self.round.turn == 0 {
            self.marks_at = now + MARKS;
            return Step::ReadMarks(self.logs.iter().map(|one| one.stored.writer).collect());
        }
        if self.length < MAX_STREAM {
            if let Some(step) = self.ship() {
                return step;
            }
            if !std::mem::replace(&mut self.round.beaten, true)
                && let Some(entries) = self.beat(now, clock)
            {
                return Step::Add(entries);
            }
        }
        if std::mem::take(&mut self.round).more { Step::Again } else { Step::Rest }
    }

    /// A connection is there, to the Redis run with this identifier if it says so.
    pub fn connected(&mut self, run: Option<&str>, now: Duration) {
        for one in &mut self.logs {
            one.shipment.connected(run);
            one.farewell = Farewell::Unsaid;
        }
        self.connected = true;
        self.marks_at = now;
        self.round = Round::default();
    }

    /// The connection failed; `jitter` is a random number from 0.5 to 1. True if it is the first failure in a row.
    pub fn failed(&mut self, now: Duration, jitter: f64) -> bool {
        let wait = BACKOFF.0.saturating_mul(1 << self.failures.min(10)).min(BACKOFF.1);
        self.failures += 1;
        self.retry_at = now + wait.mul_f64(jitter.clamp(0.0, 1.0));
        self.connected = false;
        self.sending = None;
        self.round = Round::default();
        self.failures == 1
    }

    /// The published marks of the writers asked for, and the stream's length.
    pub fn marks(&mut self, marks: Vec<Option<u64>>, length: usize, now: Duration) {
        self.length = length;
        for (one, mark) in self.logs.iter_mut().zip(marks) {
            let last = one.stored.book().last();
            one.shipment.confirmed(mark, last, now);
        }
    }

    /// What was read; gives the entries to add, which are told of as those of [`Step::Add`] are.
    ///
    /// # Errors
    /// When the disk refused; the log is located anew.
    pub fn read(&mut self, index: usize, read: io::Result<Batch>) -> io::Result<Vec<Entry<Written>>> {
        let one = &mut self.logs[index];
        let Batch { entries, next, position } = read.inspect_err(|_| one.cursor = None)?;
        let cursor = Some(Cursor { next, position });
        if entries.is_empty() {
            one.cursor = cursor;
        } else {
            self.sending = Some(Sending::Finals { index, next, cursor });
        }
        Ok(entries)
    }

    /// The stream has the entries. True if it had not taken the ones before.
    pub fn added(&mut self, count: usize, now: Duration) -> bool {
        self.length += count;
        match self.sending.take() {
            Some(Sending::Finals { index, next, cursor }) => {
                let one = &mut self.logs[index];
                one.shipment.sent(next - 1, now);
                one.cursor = cursor;
                self.round.more = true;
            }
            Some(Sending::Beats { farewells }) => {
                for (index, farewell) in farewells {
                    self.logs[index].farewell = farewell;
                }
            }
            None => {}
        }
        std::mem::take(&mut self.failures) > 0
    }

    /// The dead writers of whose logs nothing is left and whose end is in the ledger: their folders may go.
    pub fn finished(&self) -> Vec<WriterId> {
        let finished =
            |one: &&Shipped<D>| one.adopted && one.farewell == Farewell::Heard && one.stored.book().is_empty();
        self.logs.iter().filter(finished).map(|one| one.stored.writer).collect()
    }

    /// The folder of this writer is gone. Not to be called while entries are on their way.
    pub fn forget(&mut self, writer: WriterId) {
        self.logs.retain(|one| one.stored.writer != writer);
        self.round = Round::default();
    }

    /// Whether Redis has every record of this process and knows that it writes no more.
    pub fn is_done(&self) -> bool {
        self.logs.iter().filter(|one| !one.adopted).all(|one| one.farewell != Farewell::Unsaid)
    }

    /// How many finals the ledger does not have, as far as known.
    pub fn unconfirmed(&self) -> u64 {
        self.logs.iter().map(|one| one.stored.book().unconfirmed(one.shipment.mark())).sum()
    }

    /// About when the oldest of them was written.
    pub fn oldest_unconfirmed(&self) -> Option<DateTime<Utc>> {
        self.logs.iter().filter_map(|one| one.stored.book().oldest_above(one.shipment.mark())).min()
    }

    /// The next batch of a log whose turn it is.
    fn ship(&mut self) -> Option<Step<D>> {
        while let Some(one) = self.logs.get(self.round.turn) {
            let index = self.round.turn;
            self.round.turn += 1;
            match one.locate() {
                Located::Nothing => {}
                Located::At(cursor) => return Some(Step::Read(index, one.stored.clone(), cursor)),
                Located::Deleted(gap) => {
                    let next = one.stored.book().first();
                    self.sending = Some(Sending::Finals { index, next, cursor: None });
                    return Some(Step::Add(vec![gap]));
                }
            }
        }
        None
    }

    /// A beat of each live writer each second; farewells of the others.
    fn beat(&mut self, now: Duration, clock: DateTime<Utc>) -> Option<Vec<Entry<Written>>> {
        let due = now >= self.beat_at;
        let (mut entries, mut farewells) = (Vec::new(), Vec::new());
        for (index, one) in self.logs.iter().enumerate() {
            let mut book = one.stored.book();
            let says = if book.closed() { one.says_farewell(book.last(), due) } else { due };
            if says {
                let beat = book.beat(clock);
                entries.push(Entry::Beat { writer: one.stored.writer, beat });
                farewells.extend(beat.closed.then(|| (index, one.farewell_after(&beat))));
            }
        }
        if due {
            self.beat_at = now + BEAT;
        }
        self.sending = Some(Sending::Beats { farewells });
        (!entries.is_empty()).then_some(entries)
    }
}

#[cfg(test)]
mod tests;
