//! A batch of usage entries, read: finals, gaps, beats, and what nobody can read.

use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;

use chrono::{DateTime, Utc};
use sha2::{Digest as _, Sha256};

use crate::ids::{InvocationId, WriterId};
use crate::usage::{Beat, Entry, Record, Unreadable};

/// What makes an attempt the same attempt.
pub type AttemptKey = (InvocationId, DateTime<Utc>);

/// Longest part of an unreadable entry that is kept.
const KEPT: usize = 1 << 20;

/// A stream entry as Redis gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawEntry {
    /// Its place in the stream.
    pub id: String,
    /// Its fields; none when the entry itself is gone.
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A final entry of a writer.
#[derive(Clone, Debug)]
pub struct Final {
    /// Whose.
    pub writer: WriterId,
    /// Its place in the writer's sequence.
    pub sequence: u64,
    /// The attempt.
    pub record: Record,
    /// SHA-256 of the record as it arrived, to tell a repetition from a contradiction.
    pub hash: [u8; 32],
}

/// An entry that nobody can read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    /// Its place in the stream.
    pub id: String,
    /// Whose, if that can be read.
    pub writer: Option<WriterId>,
    /// Its place in the writer's sequence, if that can be read.
    pub sequence: Option<u64>,
    /// What is wrong with it.
    pub reason: String,
    /// Its fields, one per line.
    pub raw: Vec<u8>,
    /// SHA-256 of the raw text.
    pub hash: [u8; 32],
}

/// What a batch of entries says.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Attempts, in the order of the stream, repetitions included.
    pub finals: Vec<Final>,
    /// Sequences under which nothing will ever come.
    pub gaps: Vec<(WriterId, RangeInclusive<u64>)>,
    /// Signs of life.
    pub beats: Vec<(WriterId, Beat)>,
    /// Entries that nobody can read.
    pub rejects: Vec<Reject>,
}

impl Batch {
    /// Reads entries; one without fields is gone from Redis and says nothing.
    #[must_use]
    pub fn read(entries: &[RawEntry]) -> Self {
        let mut batch = Self::default();
        for entry in entries.iter().filter(|entry| !entry.fields.is_empty()) {
            match parse(entry) {
                Ok(Entry::Final { writer, sequence, record }) => {
                    let hash = Sha256::digest(entry.field("r").unwrap_or_default()).into();
                    batch.finals.push(Final { writer, sequence, record: *record, hash });
                }
                Ok(Entry::Beat { writer, beat }) => batch.beats.push((writer, beat)),
                Ok(Entry::Gap { writer, from, through, damaged }) => {
                    batch.gaps.push((writer, from..=through));
                    batch.rejects.extend(damaged.then(|| Reject::of(entry, "the log was damaged here")));
                }
                Err(error) => batch.rejects.push(Reject::of(entry, &error.to_string())),
            }
        }
        batch
    }

    /// The batch that puts an entry aside for a reason that showed only when it was stored.
    #[must_use]
    pub fn rejecting(entry: &RawEntry, reason: &str) -> Self {
        Self { rejects: vec![Reject::of(entry, reason)], ..Self::default() }
    }

    /// The first final of each attempt, and how often a later one says something else.
    #[must_use]
    pub fn first_finals(&self) -> (Vec<&Final>, u64) {
        let mut first: HashMap<AttemptKey, [u8; 32]> = HashMap::new();
        let (mut finals, mut contradictions) = (Vec::new(), 0);
        for entry in &self.finals {
            match first.get(&entry.attempt()) {
                None => {
                    first.insert(entry.attempt(), entry.hash);
                    finals.push(entry);
                }
                Some(hash) if *hash != entry.hash => contradictions += 1,
                Some(_) => {}
            }
        }
        (finals, contradictions)
    }

    /// All writers of the batch, each with the sequences that are dealt with once the batch is stored.
    #[must_use]
    pub fn sequences(&self) -> BTreeMap<WriterId, Vec<RangeInclusive<u64>>> {
        let mut sequences: BTreeMap<WriterId, Vec<RangeInclusive<u64>>> = BTreeMap::new();
        for (writer, _) in &self.beats {
            sequences.entry(*writer).or_default();
        }
        for entry in &self.finals {
            sequences.entry(entry.writer).or_default().push(entry.sequence..=entry.sequence);
        }
        for (writer, gap) in &self.gaps {
            sequences.entry(*writer).or_default().push(gap.clone());
        }
        for reject in &self.rejects {
            if let (Some(writer), Some(sequence)) = (reject.writer, reject.sequence) {
                sequences.entry(writer).or_default().push(sequence..=sequence);
            }
        }
        sequences
    }

    /// The earliest time any entry speaks of.
    #[must_use]
    pub fn earliest(&self) -> Option<DateTime<Utc>> {
        let finals = self.finals.iter().map(|entry| entry.record.completed_at);
        finals.chain(self.beats.iter().map(|(_, beat)| beat.clock)).min()
    }
}

impl RawEntry {
    fn field(&self, wanted: &str) -> Option<&[u8]> {
        self.fields.iter().find(|(name, _)| name == wanted.as_bytes()).map(|(_, value)| value.as_slice())
    }
}

impl Final {
    /// What makes an attempt the same attempt.
    #[must_use]
    pub fn attempt(&self) -> AttemptKey {
        (self.record.admission.invocation, self.record.admission.started_at)
    }
}

impl Reject {
    fn of(entry: &RawEntry, reason: &str) -> Self {
        let mut raw = Vec::new();
        for (name, value) in &entry.fields {
            raw.extend_from_slice(name);
            raw.push(b'=');
            raw.extend_from_slice(value);
            raw.push(b'\n');
        }
        let hash = Sha256::digest(&raw).into();
        raw.truncate(KEPT);
        // Postgres takes no NUL in text.
        let reason = reason.replace('\0', "\u{fffd}");
        Self { id: entry.id.clone(), writer: readable(entry, "w"), sequence: sequence(entry), reason, raw, hash }
    }
}

fn parse(entry: &RawEntry) -> Result<Entry, Unreadable> {
    let read = Entry::read(|name| entry.field(name))?;
    match &read {
        Entry::Final { .. } if sequence(entry).is_none() => Err(Unreadable::Bad("s")),
        Entry::Gap { from, through, .. } if from > through || i64::try_from(*through).is_err() => {
            Err(Unreadable::Bad("g"))
        }
        Entry::Beat { beat, .. } if i64::try_from(beat.sequence).is_err() => Err(Unreadable::Bad("b")),
        Entry::Final { .. } | Entry::Gap { .. } | Entry::Beat { .. } => Ok(read),
    }
}

/// The sequence, if Postgres can keep it.
fn sequence(entry: &RawEntry) -> Option<u64> {
    readable(entry, "s").filter(|sequence| i64::try_from(*sequence).is_ok())
}

fn readable<T: std::str::FromStr>(entry: &RawEntry, field: &str) -> Option<T> {
    std::str::from_utf8(entry.field(field)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests;
