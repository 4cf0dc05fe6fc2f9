//! What a record log holds: which segment has which sequences, what is durable, what may be deleted.

use std::collections::VecDeque;

use chrono::{DateTime, Utc};
use protocol::usage::Beat;

use super::ages::Ages;

#[cfg(test)]
mod tests;

/// A point in a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    /// The segment.
    pub(crate) segment: u64,
    /// The byte in it.
    pub(crate) offset: u64,
}

/// One segment that was written to.
#[derive(Clone, Copy, Debug)]
struct Listed {
    number: u64,
    /// Highest sequence of all earlier segments.
    after: u64,
    /// Time of the newest entry.
    newest: Option<DateTime<Utc>>,
    /// Attempts admitted here that have no final yet.
    open: u32,
}

/// The book of one writer.
#[derive(Debug, Default)]
pub(crate) struct Book {
    segments: VecDeque<Listed>,
    last: u64,
    floor: DateTime<Utc>,
    durable: Position,
    in_flight: usize,
    closed: bool,
    ages: Ages,
}

impl Book {
    /// Highest sequence given out.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// Everything before this point is on disk for good.
    pub(crate) fn durable(&self) -> Position {
        self.durable
    }

    /// Whether the writer will write no more.
    pub(crate) fn closed(&self) -> bool {
        self.closed
    }

    /// The segment that was begun last; 0 if there is none.
    pub(crate) fn newest_segment(&self) -> u64 {
        self.segments.back().map_or(0, |segment| segment.number)
    }

    /// Whether no segment is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// A segment was begun; sequences up to `after` were given out before.
    pub(crate) fn opened(&mut self, number: u64, after: u64) {
        self.last = self.last.max(after);
        self.segments.push_back(Listed { number, after, newest: None, open: 0 });
    }

    /// An attempt was admitted; gives the segment that has to stay until it ends.
    pub(crate) fn admitted(&mut self, at: DateTime<Utc>) -> u64 {
        self.in_flight += 1;
        let Some(segment) = self.segments.back_mut() else { return 0 };
        segment.open += 1;
        segment.newest = segment.newest.max(Some(at));
        segment.number
    }

    /// When an attempt that ends now is said to have ended: not before a clock that a beat has spoken of.
    pub(crate) fn ends_at(&self, completed_at: DateTime<Utc>) -> DateTime<Utc> {
        completed_at.max(self.floor)
    }

    /// The attempt admitted in that segment has its final.
    pub(crate) fn ended(&mut self, admitted_in: u64, sequence: u64, at: DateTime<Utc>) {
        self.left();
        self.noted(sequence, at);
        if let Some(segment) = self.segments.iter_mut().rev().find(|segment| segment.number == admitted_in) {
            segment.open = segment.open.saturating_sub(1);
        }
    }

    /// An attempt has ended without a final; its segment stays, so that whoever finds the log settles it.
    pub(crate) fn left(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// A final or an admission of another life of this log was read or written.
    pub(crate) fn noted(&mut self, sequence: u64, at: DateTime<Utc>) {
        self.last = self.last.max(sequence);
        self.ages.note(sequence, at);
        if let Some(segment) = self.segments.back_mut() {
            segment.newest = segment.newest.max(Some(at));
        }
    }

    /// About when the oldest final above this mark was written; none if there is none.
    pub(crate) fn oldest_above(&mut self, mark: u64) -> Option<DateTime<Utc>> {
        self.ages.oldest_above(mark)
    }

    /// A sign of life: what ends from now on ends at or after its clock.
    pub(crate) fn beat(&mut self, now: DateTime<Utc>) -> Beat {
        self.floor = self.floor.max(now);
        Beat { clock: self.floor, sequence: self.last, closed: self.closed }
    }

    /// Everything before this point is on disk for good.
    pub(crate) fn synced(&mut self, position: Position) {
        self.durable = self.durable.max(position);
    }

    /// Ends the log if no attempt is in flight; says whether it has ended.
    pub(crate) fn close(&mut self) -> bool {
        self.closed |= self.in_flight == 0;
        self.closed
    }

    /// Where to look for a sequence; none if it was deleted with all before it or never given out.
    pub(crate) fn holding(&self, sequence: u64) -> Option<Position> {
        let segment = self.segments.iter().rev().find(|segment| segment.after < sequence)?;
        (sequence <= self.last).then_some(Position { segment: segment.number, offset: 0 })
    }

    /// The lowest sequence that may still be read.
    pub(crate) fn first(&self) -> u64 {
        self.segments.front().map_or(self.last, |segment| segment.after) + 1
    }

    /// The beginning of the segment behind this one.
    pub(crate) fn following(&self, number: u64) -> Option<Position> {
        let next = self.segments.iter().find(|segment| segment.number > number)?;
        Some(Position { segment: next.number, offset: 0 })
    }

    /// How far a segment may be read.
    pub(crate) fn limit(&self, number: u64) -> u64 {
        match number.cmp(&self.durable.segment) {
            std::cmp::Ordering::Less => u64::MAX,
            std::cmp::Ordering::Equal => self.durable.offset,
            std::cmp::Ordering::Greater => 0,
        }
    }

    /// The oldest segment, if everything in it is confirmed, ended and older than `before`. Only the oldest is ever
    /// deleted: a final may lie behind its admission, never before it. The one being written stays.
    pub(crate) fn deletable(&self, mark: u64, before: DateTime<Utc>) -> Option<u64> {
        let oldest = self.segments.front()?;
        let last = match self.segments.get(1) {
            Some(next) => next.after,
            None if self.closed => self.last,
            None => return None,
        };
        let old = oldest.newest.is_none_or(|newest| newest < before);
        (last <= mark && oldest.open == 0 && old).then_some(oldest.number)
    }

    /// The oldest segment was deleted.
    pub(crate) fn forget(&mut self, number: u64) {
        self.segments.retain(|segment| segment.number != number);
    }
}
