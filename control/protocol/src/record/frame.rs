//! Frames of the record log: `[length u32][crc32 u32][kind u8][sequence u64][payload]`, little endian.
//!
//! The length and the checksum cover kind, sequence and payload. Segments are preallocated with zeros, so that a
//! length of zero is the end of what was written.

use serde::Serialize;

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

/// What a frame says.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
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
        record: Box<Record>,
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

/// A whole frame with the right checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    kind: u8,
    sequence: u64,
    payload: &'a [u8],
}

/// Reads frames one by one from a piece of a segment.
#[derive(Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Frame<'a> {
    /// What it says; none if this program does not understand it.
    #[must_use]
    pub fn entry(self) -> Option<Entry> {
        match self.kind {
            OPENED => Some(Entry::Opened { after: self.sequence }),
            ADMITTED => serde_json::from_slice(self.payload).ok().map(Entry::Admitted),
            FINAL => {
                let record = serde_json::from_slice(self.payload).ok()?;
                Some(Entry::Final { sequence: self.sequence, record })
            }
            _ => None,
        }
    }

    /// The sequence and the record of a final as they were written; none for other frames.
    #[must_use]
    pub fn final_text(self) -> Option<(u64, &'a [u8])> {
        (self.kind == FINAL).then_some((self.sequence, self.payload))
    }
}

impl<'a> Reader<'a> {
    /// Starts at the beginning of the bytes, where a frame must begin.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    /// How many bytes the frames read so far take.
    #[must_use]
    pub fn position(&self) -> usize {
        self.position
    }

    /// The next frame.
    ///
    /// # Errors
    /// When there is none; the position stays, and asking again gives the same answer.
    ///
    /// # Panics
    /// Never: slices are cut to the length that is read from them.
    pub fn next_frame(&mut self) -> Result<Frame<'a>, Stop> {
        let rest = &self.bytes[self.position..];
        let Some(length) = rest.get(..4) else {
            return Err(if rest.iter().all(|byte| *byte == 0) { Stop::End } else { Stop::Cut });
        };
        let length = u32::from_le_bytes(length.try_into().expect("four bytes")) as usize;
        if length == 0 {
            return Err(Stop::End);
        }
        if !(FIXED..=MAX_FRAME - PREFIX).contains(&length) {
            return Err(Stop::Torn);
        }
        let frame = rest.get(..PREFIX + length).ok_or(Stop::Cut)?;
        let (checksum, body) = frame[4..].split_at(4);
        if checksum != crc32fast::hash(body).to_le_bytes() {
            return Err(Stop::Torn);
        }
        let sequence = u64::from_le_bytes(body[1..FIXED].try_into().expect("eight bytes"));
        self.position += frame.len();
        Ok(Frame { kind: body[0], sequence, payload: &body[FIXED..] })
    }

    /// What the next frame says.
    ///
    /// # Errors
    /// When there is none, or nothing this program understands; the position stays.
    pub fn next_entry(&mut self) -> Result<Entry, Stop> {
        let before = self.position;
        let entry = self.next_frame()?.entry();
        if entry.is_none() {
            self.position = before;
        }
        entry.ok_or(Stop::Unreadable)
    }
}

/// Appends the frame that opens a segment.
pub fn encode_opened(after: u64, out: &mut Vec<u8>) {
    let start = begin(OPENED, after, out);
    finish(start, out).expect("a frame without payload is small");
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
