//! Appends frames to segments, with preallocated ones in reserve, and keeps each frame until it is durable.

use std::collections::VecDeque;
use std::io;

use crate::record::book::{Book, Position};
use crate::record::disk::{Disk, DiskFile};
use crate::record::frame::{self, OVERHEAD, TooLarge, encode_opened};
use crate::record::segment::Segment;

/// Largest frame of a live log. A rule, not a limit of the format: what is left of a segment behind its last frame
/// is smaller, so that the room in the reserve can be counted.
pub const LARGEST: u64 = 8 * 1024;

/// Where frames are appended.
///
/// A disk that reports an error when it is told to make data durable may have dropped that data, and says nothing the
/// next time. So frames stay in memory until they are durable, and are written again elsewhere after such an error.
#[derive(Debug)]
pub struct Appender<D: Disk> {
    disk: D,
    current: Option<Segment<D::File>>,
    spares: VecDeque<Segment<D::File>>,
    /// Full segments that hold frames of the tail.
    full: Vec<D::File>,
    /// The frames that are not known to be durable, in order.
    tail: Vec<u8>,
    /// How much of the tail is in segments; the rest waits for a disk that takes it.
    written: usize,
    /// Highest sequence of a final that is in segments.
    last: u64,
    /// What [`Self::last`] was for the durable part.
    durable_last: u64,
    next: u64,
}

/// What has to be made durable, and how far everything is then.
#[derive(Debug)]
pub struct Syncing<F> {
    files: Vec<F>,
    position: Position,
    bytes: usize,
    last: u64,
}

impl<F: DiskFile> Syncing<F> {
    /// Makes it durable. Blocks.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn run(&self) -> io::Result<()> {
        self.files.iter().try_for_each(DiskFile::sync)
    }
}

impl<D: Disk> Appender<D> {
    /// Appends to the segments in reserve, behind finals up to `last`; more can be added, counted from `next`.
    pub fn new(disk: D, spares: VecDeque<Segment<D::File>>, next: u64, last: u64) -> Self {
        let (full, tail) = (Vec::new(), Vec::new());
        Self { disk, current: None, spares, full, tail, written: 0, last, durable_last: last, next }
    }

    /// Where the segments lie.
    pub fn disk(&self) -> &D {
        &self.disk
    }

    /// How many segments are in reserve.
    pub fn spares(&self) -> usize {
        self.spares.len()
    }

    /// A number for a segment to be added.
    pub fn number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    /// Adds a segment to the reserve.
    pub fn add(&mut self, segment: Segment<D::File>) {
        self.spares.push_back(segment);
    }

    /// Bytes of frames that surely fit once one of this size is appended, none if it does not fit itself.
    pub fn room_after(&self, size: u64) -> Option<u64> {
        let spares: u64 = self.spares.iter().map(|spare| spare.rest().saturating_sub(LARGEST + OVERHEAD as u64)).sum();
        match &self.current {
            Some(current) if current.rest() >= size => Some(spares + (current.rest() - size).saturating_sub(LARGEST)),
            _ => spares.checked_sub(size),
        }
    }

    /// Bytes of frames that are not known to be durable.
    pub fn unsynced(&self) -> usize {
        self.tail.len()
    }

    /// Whether frames wait for a disk that takes them.
    pub fn waits(&self) -> bool {
        self.written < self.tail.len()
    }

    /// Adds a frame behind all others, in memory, and gives its size; [`Self::flush`] writes it.
    ///
    /// # Errors
    /// When it is too large; nothing is added then.
    pub fn push(&mut self, encode: impl FnOnce(&mut Vec<u8>) -> Result<(), TooLarge>) -> Result<u64, TooLarge> {
        let start = self.tail.len();
        encode(&mut self.tail)?;
        Ok((self.tail.len() - start) as u64)
    }

    /// Takes back the last frame, of this size, that was not written.
    pub fn pop(&mut self, size: u64) {
        let kept = self.tail.len().saturating_sub(usize::try_from(size).unwrap_or(usize::MAX)).max(self.written);
        self.tail.truncate(kept);
    }

    /// Writes the frames that wait into the page cache, where a kill cannot reach them.
    ///
    /// # Errors
    /// When the disk refuses; the rest goes on waiting.
    pub fn flush(&mut self, book: &mut Book) -> io::Result<()> {
        while self.waits() {
            let end = self.written + frame::length(&self.tail[self.written..]);
            if self.current.as_ref().is_none_or(|current| current.rest() < (end - self.written) as u64) {
                self.roll(book)?;
            }
            let current = self.current.as_mut().ok_or(io::ErrorKind::StorageFull)?;
            let frame = &self.tail[self.written..end];
            current.append(frame)?;
            self.last = frame::final_sequence(frame).unwrap_or(self.last);
            self.written = end;
        }
        Ok(())
    }

    /// Goes on in the next segment of the reserve. One that cannot be begun is given up.
    ///
    /// # Errors
    /// When the reserve is empty or the disk refuses.
    pub fn roll(&mut self, book: &mut Book) -> io::Result<()> {
        let mut next = self.spares.pop_front().ok_or(io::ErrorKind::StorageFull)?;
        let mut opened = Vec::with_capacity(OVERHEAD);
        encode_opened(self.last, &mut opened);
        if let Err(error) = next.append(&opened) {
            // It holds nothing; if it cannot be removed either, whoever finds the log reads it as empty.
            let _ = self.disk.remove(next.number());
            return Err(error);
        }
        book.opened(next.number(), self.last);
        self.full.extend(self.current.replace(next).map(|full| full.file()));
        Ok(())
    }

    /// The end of what is written.
    pub fn position(&self) -> Position {
        self.current
            .as_ref()
            .map(|current| Position { segment: current.number(), offset: current.written() })
            .unwrap_or_default()
    }

    /// What has to be made durable for everything written so far. One at a time.
    pub fn syncing(&self) -> Syncing<D::File> {
        let files = self.full.iter().cloned().chain(self.current.as_ref().map(Segment::file)).collect();
        Syncing { files, position: self.position(), bytes: self.written, last: self.last }
    }

    /// That much is durable.
    pub fn synced(&mut self, book: &mut Book, syncing: &Syncing<D::File>) {
        self.tail.drain(..syncing.bytes);
        self.written -= syncing.bytes;
        // The last of the files is the one that was written to.
        self.full.drain(..syncing.files.len().saturating_sub(1).min(self.full.len()));
        self.durable_last = syncing.last;
        book.synced(syncing.position, syncing.last);
    }

    /// It could not be made durable: nothing of the tail may be trusted where it is. All of it is written again.
    ///
    /// # Errors
    /// When the disk refuses; what is not written goes on waiting.
    pub fn rewrite(&mut self, book: &mut Book) -> io::Result<()> {
        book.distrust();
        self.current = None;
        self.full.clear();
        self.written = 0;
        self.last = self.durable_last;
        self.flush(book)
    }

    /// Removes the segments in reserve.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn discard_spares(&mut self) -> io::Result<()> {
        self.spares.drain(..).try_for_each(|spare| self.disk.remove(spare.number()))
    }
}

#[cfg(test)]
mod tests;
