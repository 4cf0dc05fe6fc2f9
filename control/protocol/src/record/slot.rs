//! The slot of a call in flight: its counters in 128 bytes, readable after the writer was killed.

use chrono::{DateTime, Utc};

use crate::ids::InvocationId;
use crate::record::settle::Counters;

#[cfg(test)]
mod tests;

/// Bytes of a slot.
pub const SIZE: usize = 128;

const DELIVERED: u8 = 1;
const PROMPT: u8 = 2;
const COMPLETION: u8 = 4;
const FIRST: u8 = 8;

/// What was counted of a call so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The attempt.
    pub invocation: InvocationId,
    /// When the counters were true.
    pub updated_at: DateTime<Utc>,
    /// The counters.
    pub counters: Counters,
}

impl Slot {
    /// The slot's bytes, little endian, with a checksum over all others in the first four.
    #[must_use]
    pub fn encode(&self) -> [u8; SIZE] {
        let counters = &self.counters;
        let flags = [
            (DELIVERED, counters.delivered),
            (PROMPT, counters.prompt.is_some()),
            (COMPLETION, counters.completion.is_some()),
            (FIRST, counters.first_chunk_micros.is_some()),
        ];
        let mut bytes = [0; SIZE];
        bytes[4] = flags.into_iter().filter(|(_, set)| *set).map(|(flag, _)| flag).sum();
        bytes[8..24].copy_from_slice(self.invocation.0.as_bytes());
        let numbers = [
            self.updated_at.timestamp_micros().cast_unsigned(),
            counters.chunks,
            counters.bytes,
            counters.prompt.unwrap_or(0),
            counters.completion.unwrap_or(0),
            counters.first_chunk_micros.unwrap_or(0),
        ];
        for (place, number) in bytes[24..72].chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        let checksum = crc32fast::hash(&bytes[4..]);
        bytes[..4].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Reads a slot; a torn one and one never used give none.
    ///
    /// # Panics
    /// Never: slices are cut to the length that is read from them.
    #[must_use]
    pub fn decode(bytes: &[u8; SIZE]) -> Option<Self> {
        if bytes[..4] != crc32fast::hash(&bytes[4..]).to_le_bytes() {
            return None;
        }
        let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let flags = bytes[4];
        let optional = |bit: u8, at: usize| (flags & bit != 0).then(|| number(at));
        Some(Self {
            invocation: InvocationId(uuid::Uuid::from_slice(&bytes[8..24]).expect("sixteen bytes")),
            updated_at: DateTime::from_timestamp_micros(number(24).cast_signed())?,
            counters: Counters {
                chunks: number(32),
                bytes: number(40),
                prompt: optional(PROMPT, 48),
                completion: optional(COMPLETION, 56),
                first_chunk_micros: optional(FIRST, 64),
                delivered: flags & DELIVERED != 0,
            },
        })
    }
}
