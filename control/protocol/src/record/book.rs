//! What a record log holds: which segment has which sequences, what is durable, what may be deleted.

use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeInclusive;

use chrono::{DateTime, TimeDelta, Utc};

use crate::record::ages::Ages;
use crate::usage::{Beat, Written};

#[cfg(test)]
mod tests;

/// How far an end is moved behind a beat. The two race by milliseconds; a clock that was set may be hours off, for which
/// nobody pays: such a row is late, as one of a dead writer may be, and a closed hour takes it into the next one.
const MOVED: TimeDelta = TimeDelta::seconds(1);

/// A point in a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The segment.
    pub segment: u64,
    /// The byte in it.
    pub offset: u64,
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
    /// Highest sequence of the finals of attempts admitted here.
    finals: u64,
    /// Where it ends for a reader, if what follows was written again elsewhere.
    trusted: Option<u64>,
}

/// How far a segment may be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    /// The first byte that may not be read.
    pub limit: u64,
    /// Whether the log goes on in the next segment.
    pub complete: bool,
    /// Highest sequence that is on disk for good, if it is found before the limit.
    pub last: Option<u64>,
}

/// The book of one writer.
#[derive(Debug, Default)]
pub struct Book {
    segments: VecDeque<Listed>,
    last: u64,
    floor: DateTime<Utc>,
    durable: Position,
    durable_last: u64,
    skipped: Vec<RangeInclusive<u64>>,
    /// Finals that lie elsewhere than in their sequence.
    strays: BTreeMap<u64, Written>,
    in_flight: usize,
    closed: bool,
    ages: Ages,
}

impl Book {
    /// Highest sequence given out.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Everything before this point is on disk for good.
    pub fn durable(&self) -> Position {
        self.durable
    }

    /// Whether the writer will write no more.
    pub fn closed(&self) -> bool {
        self.closed
    }

    /// The segment that was begun last; 0 if there is none.
    pub fn newest_segment(&self) -> u64 {
        self.segments.back().map_or(0, |segment| segment.number)
    }

    /// Whether no segment is left.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// A segment was begun; sequences up to `after` were given out before.
    pub fn opened(&mut self, number: u64, after: u64) {
        self.last = self.last.max(after);
        self.segments.push_back(Listed { number, after, newest: None, open: 0, finals: 0, trusted: None });
    }

    /// An attempt was admitted; gives the segment that has to stay until it ends.
    pub fn admitted(&mut self, at: DateTime<Utc>) -> u64 {
        self.in_flight += 1;
        let Some(segment) = self.segments.back_mut() else { return 0 };
        segment.open += 1;
        segment.newest = segment.newest.max(Some(at));
        segment.number
    }

    /// When an attempt that ends now is said to have ended: not before a clock that a beat has spoken of, unless that
    /// was set since the attempt began.
    pub fn ends_at(&self, completed_at: DateTime<Utc>) -> DateTime<Utc> {
        if self.floor - completed_at <= MOVED { completed_at.max(self.floor) } else { completed_at }
    }

    /// The attempt admitted in that segment has its final.
    pub fn ended(&mut self, admitted_in: u64, sequence: u64, at: DateTime<Utc>) {
        self.left();
        self.noted(sequence, at);
        if let Some(segment) = self.segments.iter_mut().rev().find(|segment| segment.number == admitted_in) {
            segment.open = segment.open.saturating_sub(1);
            segment.finals = segment.finals.max(sequence);
        }
    }

    /// An attempt has ended without a final; its segment stays, so that whoever finds the log settles it.
    pub fn left(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// A final or an admission of another life of this log was read or written.
    pub fn noted(&mut self, sequence: u64, at: DateTime<Utc>) {
        self.last = self.last.max(sequence);
        self.ages.note(sequence, at);
        if let Some(segment) = self.segments.back_mut() {
            segment.newest = segment.newest.max(Some(at));
        }
    }

    /// A sign of life: what ends from now on ends at or after its clock, unless that is set.
    pub fn beat(&mut self, now: DateTime<Utc>) -> Beat {
        self.floor = self.floor.max(now);
        Beat { clock: self.floor, sequence: self.last, closed: self.closed }
    }

    /// Everything before this point is on disk for good, which includes finals up to `last`.
    pub fn synced(&mut self, position: Position, last: u64) {
        self.durable = self.durable.max(position);
        self.durable_last = self.durable_last.max(last);
    }

    /// What is not on disk for good will not be either: it is written again in segments to come.
    pub fn distrust(&mut self) {
        let durable = self.durable;
        for segment in self.segments.iter_mut().filter(|segment| segment.number >= durable.segment) {
            let trusted = if segment.number == durable.segment { durable.offset } else { 0 };
            segment.trusted = Some(segment.trusted.map_or(trusted, |known| known.min(trusted)));
        }
    }

    /// No final has one of the sequences up to `through` that follow the last one.
    pub fn skip(&mut self, through: u64) {
        if through > self.last {
            self.skipped.push(self.last + 1..=through);
            self.last = through;
        }
    }

    /// These finals lie elsewhere than in their sequence.
    pub fn found(&mut self, strays: BTreeMap<u64, Written>) {
        self.strays = strays;
    }

    /// The first of these sequences whose final lies elsewhere.
    pub fn stray(&self, sequences: RangeInclusive<u64>) -> Option<(u64, Written)> {
        self.strays.range(sequences).next().map(|(sequence, record)| (*sequence, record.clone()))
    }

    /// How many finals above the mark there are.
    pub fn unconfirmed(&self, mark: u64) -> u64 {
        let above =
            |range: &RangeInclusive<u64>| (range.end() + 1).saturating_sub(mark.saturating_add(1).max(*range.start()));
        self.last.saturating_sub(mark).saturating_sub(self.skipped.iter().map(above).sum())
    }

    /// About when the oldest final above the mark was written; none if there is none.
    pub fn oldest_above(&mut self, mark: u64) -> Option<DateTime<Utc>> {
        self.ages.oldest_above(mark)
    }

    /// Ends the log if no attempt is in flight; says whether it has ended.
    pub fn close(&mut self) -> bool {
        self.closed |= self.in_flight == 0;
        self.closed
    }

    /// Where to look for a sequence; none if it was deleted with all before it or never given out.
    pub fn holding(&self, sequence: u64) -> Option<Position> {
        let behind = self.segments.iter().rev().find(|segment| segment.after < sequence);
        // A final from before the first segment that lies elsewhere is told where that one begins.
        let segment = behind.or_else(|| self.segments.front().filter(|_| sequence >= self.first()))?;
        (sequence <= self.last).then_some(Position { segment: segment.number, offset: 0 })
    }

    /// The lowest sequence that may still be read.
    pub fn first(&self) -> u64 {
        let begins = self.segments.front().map_or(self.last, |segment| segment.after) + 1;
        self.strays.keys().next().map_or(begins, |stray| begins.min(*stray))
    }

    /// The beginning of the segment behind this one.
    pub fn following(&self, number: u64) -> Option<Position> {
        let next = self.segments.iter().find(|segment| segment.number > number)?;
        Some(Position { segment: next.number, offset: 0 })
    }

    /// How far a segment may be read.
    pub fn reach(&self, number: u64) -> Reach {
        let trusted =
            self.segments.iter().rev().find(|segment| segment.number == number).and_then(|segment| segment.trusted);
        let complete = number < self.durable.segment;
        let limit = match number.cmp(&self.durable.segment) {
            std::cmp::Ordering::Less => u64::MAX,
            std::cmp::Ordering::Equal => self.durable.offset,
            std::cmp::Ordering::Greater => 0,
        };
        let last = (number == self.durable.segment).then_some(self.durable_last);
        Reach { limit: trusted.unwrap_or(limit).min(limit), complete, last }
    }

    /// The oldest segment, if everything in it, and the final of everything admitted in it, is confirmed and older than
    /// `before`; of a closed log, if everything is confirmed. Only the oldest is ever deleted: a final may lie behind
    /// its admission, never before it. The one being written stays.
    pub fn deletable(&self, mark: u64, before: DateTime<Utc>) -> Option<u64> {
        let oldest = self.segments.front()?;
        let needed = match self.segments.get(1) {
            _ if self.closed => self.last,
            Some(next) => next.after.max(oldest.finals),
            None => return None,
        };
        let old = oldest.newest.is_none_or(|newest| newest < before);
        (needed <= mark && oldest.open == 0 && old).then_some(oldest.number)
    }

    /// The oldest segment was deleted.
    pub fn forget(&mut self, number: u64) {
        self.segments.retain(|segment| segment.number != number);
    }
}
