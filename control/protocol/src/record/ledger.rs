//! The ingester's decision about a batch: which attempts are new, and what becomes known of the writers.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use crate::ids::WriterId;
use crate::record::batch::{AttemptKey, Batch, Final};
use crate::record::marks;
use crate::usage::Beat;

#[cfg(test)]
mod tests;

/// A record log as the ledger knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogWriter {
    /// Highest contiguous sequence that is stored.
    pub mark: u64,
    /// Clock of the newest beat that holds.
    pub clock: DateTime<Utc>,
    /// Whether the writer will write no more.
    pub closed: bool,
}

/// What the finals of a batch are.
#[derive(Clone, Debug, Default)]
pub struct Attempts<'a> {
    /// To be inserted.
    pub new: Vec<&'a Final>,
    /// Repetitions, in the batch or of what is stored.
    pub repeated: u64,
    /// Finals that say something else than the first of their attempt, which stands.
    pub contradicted: u64,
}

/// The attempts at or below their writer's mark, which are stored already. Those above it are looked up only once the
/// insert shows that one of them is stored too: behind a gap, or by another writer.
#[must_use]
pub fn marked<'a>(first: &[&'a Final], known: &BTreeMap<WriterId, LogWriter>) -> Vec<&'a Final> {
    let stored = |entry: &&&Final| known.get(&entry.writer).is_some_and(|known| entry.sequence <= known.mark);
    first.iter().filter(stored).copied().collect()
}

/// Tells new attempts from old ones; `held` gives the hash of the record that is stored of an attempt.
pub fn attempts<'a, 'held>(
    batch: &'a Batch,
    (first, contradictions): (Vec<&'a Final>, u64),
    held: impl Fn(&AttemptKey) -> Option<&'held [u8]>,
) -> Attempts<'a> {
    let mut found = Attempts { contradicted: contradictions, ..Attempts::default() };
    for entry in first {
        match held(&entry.attempt()) {
            None => found.new.push(entry),
            Some(hash) if hash != entry.hash => found.contradicted += 1,
            Some(_) => {}
        }
    }
    found.repeated = batch.finals.len() as u64 - found.new.len() as u64 - found.contradicted;
    found
}

/// Moves the marks and clocks of the batch's writers, once what it holds is stored in the same transaction; all of
/// its writers must be in `known`.
pub fn advance(batch: &Batch, known: &mut BTreeMap<WriterId, LogWriter>) {
    for (writer, sequences) in batch.sequences() {
        if let Some(known) = known.get_mut(&writer) {
            known.mark = marks::advance(known.mark, sequences);
        }
    }
    for (writer, beat) in &batch.beats {
        if let Some(known) = known.get_mut(writer) {
            known.hear(beat);
        }
    }
}

impl LogWriter {
    /// A writer of which nothing is stored, first heard of at this time.
    #[must_use]
    pub fn new(first_heard: DateTime<Utc>) -> Self {
        Self { mark: 0, clock: first_heard, closed: false }
    }

    /// Believes a beat once everything it speaks of is stored.
    pub fn hear(&mut self, beat: &Beat) {
        if marks::confirms(self.mark, beat) {
            self.clock = self.clock.max(beat.clock);
            self.closed |= beat.closed;
        }
    }
}
