//! Frames of the record log: `[length u32][crc32 u32][kind u8][sequence u64][payload]`, little endian.
//!
//! The length and the checksum cover kind, sequence and payload. Segments are preallocated with zeros, so that a
//! length of zero is the end of what was written.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::usage::{Admission, Record};

#[cfg(test)]
mod tests;

/// Largest frame, length and checksum included.
pub const MAX_FRAME: usize = 256 * 1024;

/// Bytes of a frame besides its payload.
pub const OVERHEAD: usize = PREFIX + FIXED;

/// Length and checksum.
const PREFIX: usize = 8;
/// Kind and sequence.
const FIXED: usize = 9;

const OPENED: u8 = 1;
const ADMITTED: u8 = 2;
const FINAL: u8 = 3;
const SKIPPED: u8 = 4;

/// What a frame says; its record read, or [as it was written](crate::usage::Written).
#[derive(Clone, Debug, PartialEq)]
pub enum Entry<R = Box<Record>> {
    /// A segment begins; the writer had given out sequences up to `after`.
    Opened {
        /// Highest sequence of all earlier segments.
        after: u64,
    },
    /// An attempt is about to be sent.
    Admitted(Box<Admission>),
    /// An attempt has ended.
    Final {
        /// Its place in the writer's sequence, from 1 without gaps.
        sequence: u64,
        /// The attempt.
        record: R,
    },
    /// No final behind this point has a sequence up to `through`.
    Skipped {
        /// The last sequence that is skipped.
        through: u64,
    },
}

/// A frame that would be larger than [`MAX_FRAME`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a log frame of {0} bytes is too large")]
pub struct TooLarge(pub usize);

/// Why a reader stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Nothing was written behind this point.
    End,
    /// The frame goes on behind the bytes given.
    Cut,
    /// The frame was written in part, or changed afterwards.
    Torn,
    /// The frame is whole but says something this program does not understand.
    Unreadable,
}

/// Reads entries one by one from a piece of a segment.
#[derive(Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Reader<'a> {
    /// Starts at the beginning of the bytes, where a frame must begin.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    /// How many bytes the entries read so far take.
    #[must_use]
    pub fn position(&self) -> usize {
        self.position
    }

    /// The next entry.
    ///
    /// # Errors
    /// When there is none; the position stays, and asking again gives the same answer.
    ///
    /// # Panics
    /// Never: slices are cut to the length that is read from them.
    pub fn next_entry<R: DeserializeOwned>(&mut self) -> Result<Entry<R>, Stop> {
        let frame = whole(&self.bytes[self.position..])?;
        let body = &frame[PREFIX..];
        let sequence = u64::from_le_bytes(body[1..FIXED].try_into().expect("eight bytes"));
        let entry = decode(body[0], sequence, &body[FIXED..]).ok_or(Stop::Unreadable)?;
        self.position += frame.len();
        Ok(entry)
    }

    /// Goes behind what could not be read, to the next whole frame, or, if there is `more` to read elsewhere, to the
    /// next point where one may begin that does not end here. False if there is none; then the position is the last
    /// from which reading on makes sense.
    pub fn resume(&mut self, more: bool) -> bool {
        let mut at = self.position + 1;
        while let Some(nonzero) = self.bytes.get(at..).and_then(|rest| rest.iter().position(|byte| *byte != 0)) {
            // A length is not zero, but its lower bytes may be.
            for start in at.max((at + nonzero).saturating_sub(3))..=at + nonzero {
                match whole(&self.bytes[start..]) {
                    Ok(_) => {
                        self.position = start;
                        return true;
                    }
                    Err(Stop::Cut) if more => {
                        self.position = start;
                        return false;
                    }
                    Err(_) => {}
                }
            }
            at += nonzero + 1;
        }
        if more {
            self.position = self.bytes.len().saturating_sub(3).max(self.position);
        }
        false
    }
}

/// The frame that these bytes begin with.
fn whole(bytes: &[u8]) -> Result<&[u8], Stop> {
    let Some(length) = bytes.first_chunk() else {
        return Err(if bytes.iter().all(|byte| *byte == 0) { Stop::End } else { Stop::Cut });
    };
    let length = u32::from_le_bytes(*length) as usize;
    if length == 0 {
        return Err(Stop::End);
    }
    if !(FIXED..=MAX_FRAME - PREFIX).contains(&length) {
        return Err(Stop::Torn);
    }
    let frame = bytes.get(..PREFIX + length).ok_or(Stop::Cut)?;
    let (checksum, body) = frame[4..].split_at(4);
    if checksum == crc32fast::hash(body).to_le_bytes() { Ok(frame) } else { Err(Stop::Torn) }
}

/// Appends the frame that opens a segment.
pub fn encode_opened(after: u64, out: &mut Vec<u8>) {
    let start = begin(OPENED, after, out);
    finish(start, out).expect("a frame without payload is small");
}

/// Appends the frame that skips sequences.
pub fn encode_skipped(through: u64, out: &mut Vec<u8>) {
    let start = begin(SKIPPED, through, out);
    finish(start, out).expect("a frame without payload is small");
}

/// Bytes of the whole frame that these begin with.
pub(crate) fn length(bytes: &[u8]) -> usize {
    let length = bytes.first_chunk().map_or(0, |length| u32::from_le_bytes(*length) as usize);
    (PREFIX + length).min(bytes.len())
}

/// The sequence in a whole frame, if it is a final.
pub(crate) fn final_sequence(frame: &[u8]) -> Option<u64> {
    let sequence = frame.get(PREFIX + 1..OVERHEAD)?.try_into().ok()?;
    (frame[PREFIX] == FINAL).then_some(u64::from_le_bytes(sequence))
}

/// Appends the frame of an admission.
///
/// # Errors
/// When it would be too large; nothing is appended then.
pub fn encode_admitted(admission: &Admission, out: &mut Vec<u8>) -> Result<(), TooLarge> {
    encode(ADMITTED, 0, admission, out)
}

/// Appends the frame of a final.
///
/// # Errors
/// When it would be too large; nothing is appended then.
pub fn encode_final(sequence: u64, record: &Record, out: &mut Vec<u8>) -> Result<(), TooLarge> {
    encode(FINAL, sequence, record, out)
}

fn encode(kind: u8, sequence: u64, payload: &impl Serialize, out: &mut Vec<u8>) -> Result<(), TooLarge> {
    let start = begin(kind, sequence, out);
    serde_json::to_writer(&mut *out, payload).expect("an admission or a record serialises into memory");
    finish(start, out)
}

fn begin(kind: u8, sequence: u64, out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0; PREFIX]);
    out.push(kind);
    out.extend_from_slice(&sequence.to_le_bytes());
    start
}

fn finish(start: usize, out: &mut Vec<u8>) -> Result<(), TooLarge> {
    let size = out.len() - start;
    if size > MAX_FRAME {
        out.truncate(start);
        return Err(TooLarge(size));
    }
    let length = u32::try_from(size - PREFIX).expect("a frame is smaller than four gigabytes");
    let checksum = crc32fast::hash(&out[start + PREFIX..]);
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    out[start + 4..start + PREFIX].copy_from_slice(&checksum.to_le_bytes());
    Ok(())
}

fn decode<R: DeserializeOwned>(kind: u8, sequence: u64, payload: &[u8]) -> Option<Entry<R>> {
    match kind {
        OPENED => Some(Entry::Opened { after: sequence }),
        ADMITTED => serde_json::from_slice(payload).ok().map(Entry::Admitted),
        FINAL => serde_json::from_slice(payload).ok().map(|record| Entry::Final { sequence, record }),
        SKIPPED => Some(Entry::Skipped { through: sequence }),
        _ => None,
    }
}
