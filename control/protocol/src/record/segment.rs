//! One segment of a record log: a preallocated file that frames are appended to and read from.

use std::io;

use serde::de::DeserializeOwned;

use crate::record::disk::{Disk, DiskFile};
use crate::record::frame::{Entry, MAX_FRAME, Reader, Stop};

#[cfg(test)]
mod tests;

/// Bytes read at once; a whole frame always fits.
const PIECE: usize = 2 * MAX_FRAME;

/// Entries read at once.
const ENTRIES: usize = 500;

/// A segment that is written to.
#[derive(Debug)]
pub struct Segment<F> {
    number: u64,
    file: F,
    size: u64,
    written: u64,
}

/// Some entries of a segment.
#[derive(Debug)]
pub struct Piece<R> {
    /// The entries, in order.
    pub entries: Vec<Entry<R>>,
    /// Where to read on.
    pub end: u64,
    /// The end of the last entry; none if there is no entry.
    pub written: Option<u64>,
    /// How often something unreadable was skipped to come to the next entry.
    pub damaged: u64,
    /// Why there are no more: nothing was written from `end` on ([`Stop::End`]), what is there cannot be read
    /// ([`Stop::Torn`]) or is of another version ([`Stop::Unreadable`]); none if more can be read from `end`.
    pub stop: Option<Stop>,
}

impl<F: DiskFile> Segment<F> {
    /// Makes a segment whose room is reserved, durably; what is half made is removed.
    ///
    /// # Errors
    /// When the disk refuses or is full.
    pub fn create<D: Disk<File = F>>(disk: &D, number: u64, size: u64) -> io::Result<Self> {
        let made = disk.create(number, size).and_then(|file| {
            file.sync()?;
            disk.sync_names()?;
            Ok(Self { number, file, size, written: 0 })
        });
        if made.is_err() {
            // The first error is the one to report; an empty segment that stays behind is found by the next owner.
            let _ = disk.remove(number);
        }
        made
    }

    /// Takes over a segment of zeros that a dead writer kept in reserve.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn reopen_empty<D: Disk<File = F>>(disk: &D, number: u64) -> io::Result<Self> {
        let (file, size) = disk.open(number)?;
        Ok(Self { number, file, size, written: 0 })
    }

    /// Its place in the log.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Bytes written.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Bytes that are still free.
    #[must_use]
    pub fn rest(&self) -> u64 {
        self.size - self.written
    }

    /// The file, to make it durable.
    #[must_use]
    pub fn file(&self) -> F {
        self.file.clone()
    }

    /// Writes a frame behind the last one; after a failure the next one takes its place.
    ///
    /// # Errors
    /// When there is no room or the disk refuses.
    pub fn append(&mut self, frame: &[u8]) -> io::Result<()> {
        if self.rest() < frame.len() as u64 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file.write(frame, self.written)?;
        self.written += frame.len() as u64;
        Ok(())
    }
}

/// Reads some entries from `from` on, none from `limit` on; bounded in bytes and number. What cannot be read is skipped
/// up to the next whole frame, however far that is.
///
/// # Errors
/// When the segment is not there or the disk refuses.
pub fn read<D: Disk, R: DeserializeOwned>(disk: &D, number: u64, from: u64, limit: u64) -> io::Result<Piece<R>> {
    let asked = usize::try_from(limit.saturating_sub(from)).unwrap_or(PIECE).min(PIECE);
    let bytes = disk.read(number, from, asked)?;
    let more = bytes.len() == asked && from + (asked as u64) < limit;
    let mut reader = Reader::new(&bytes);
    let mut piece = Piece { entries: Vec::new(), end: from, written: None, damaged: 0, stop: None };
    while piece.entries.len() < ENTRIES {
        match reader.next_entry() {
            Ok(entry) => {
                piece.entries.push(entry);
                piece.written = Some(from + reader.position() as u64);
            }
            Err(Stop::Cut) if more => break,
            Err(Stop::Unreadable) => {
                piece.stop = Some(Stop::Unreadable);
                break;
            }
            Err(Stop::End | Stop::Cut | Stop::Torn) => {
                let unread = reader.position();
                if reader.resume(more) {
                    piece.damaged += 1;
                    continue;
                }
                piece.damaged += u64::from(bytes[unread..reader.position()].iter().any(|byte| *byte != 0));
                let zeros = bytes[reader.position()..].iter().all(|byte| *byte == 0);
                piece.stop = (!more).then_some(if zeros { Stop::End } else { Stop::Torn });
                break;
            }
        }
    }
    piece.end = from + reader.position() as u64;
    Ok(piece)
}
