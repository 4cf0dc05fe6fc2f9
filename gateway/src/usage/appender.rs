//! Appends frames to segments, with preallocated ones in reserve.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use protocol::record::frame::{OVERHEAD, encode_opened};

use super::book::{Book, Position};
use super::segment::{self, Segment};

/// Largest frame of a live log. A rule, not a limit of the format: what is left of a segment behind its last frame
/// is smaller, so that the room in the reserve can be counted.
pub(crate) const LARGEST: u64 = 8 * 1024;

/// Where frames are appended.
#[derive(Debug)]
pub(crate) struct Appender {
    folder: PathBuf,
    current: Option<Segment>,
    spares: VecDeque<Segment>,
    unsynced: Vec<Arc<File>>,
    next: u64,
}

impl Appender {
    /// Appends to the segments in reserve; more can be added, counted from `next`.
    pub(crate) fn new(folder: PathBuf, spares: VecDeque<Segment>, next: u64) -> Self {
        Self { folder, current: None, spares, unsynced: Vec::new(), next }
    }

    /// Where the segments lie.
    pub(crate) fn folder(&self) -> &PathBuf {
        &self.folder
    }

    /// How many segments are in reserve.
    pub(crate) fn spares(&self) -> usize {
        self.spares.len()
    }

    /// A number for a segment to be added.
    pub(crate) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    /// Adds a segment to the reserve.
    pub(crate) fn add(&mut self, segment: Segment) {
        self.spares.push_back(segment);
    }

    /// Bytes of frames that surely fit once one of this size is appended, none if it does not fit itself.
    pub(crate) fn room_after(&self, size: u64) -> Option<u64> {
        let spares: u64 = self.spares.iter().map(|spare| spare.rest().saturating_sub(LARGEST + OVERHEAD as u64)).sum();
        match &self.current {
            Some(current) if current.rest() >= size => Some(spares + (current.rest() - size).saturating_sub(LARGEST)),
            _ => spares.checked_sub(size),
        }
    }

    /// Writes a frame into the page cache, where a kill cannot reach it.
    pub(crate) fn append(&mut self, book: &mut Book, frame: &[u8]) -> io::Result<()> {
        if self.current.as_ref().is_none_or(|current| current.rest() < frame.len() as u64) {
            self.roll(book)?;
        }
        self.current.as_mut().ok_or(io::ErrorKind::StorageFull)?.append(frame)
    }

    /// Goes on in the next segment of the reserve.
    pub(crate) fn roll(&mut self, book: &mut Book) -> io::Result<()> {
        let mut next = self.spares.pop_front().ok_or(io::ErrorKind::StorageFull)?;
        let mut opened = Vec::with_capacity(OVERHEAD);
        encode_opened(book.last(), &mut opened);
        next.append(&opened)?;
        book.opened(next.number(), book.last());
        self.unsynced.extend(self.current.replace(next).map(|full| full.file()));
        Ok(())
    }

    /// The end of what is written.
    pub(crate) fn position(&self) -> Position {
        self.current
            .as_ref()
            .map(|current| Position { segment: current.number(), offset: current.written() })
            .unwrap_or_default()
    }

    /// The files to make durable for everything up to [`Self::position`].
    pub(crate) fn dirty(&mut self) -> Vec<Arc<File>> {
        let mut files = std::mem::take(&mut self.unsynced);
        files.extend(self.current.as_ref().map(Segment::file));
        files
    }

    /// Removes the segments in reserve.
    pub(crate) fn discard_spares(&mut self) -> io::Result<()> {
        for spare in self.spares.drain(..) {
            fs::remove_file(segment::path(&self.folder, spare.number()))?;
        }
        Ok(())
    }

    /// These could not be made durable.
    pub(crate) fn still_dirty(&mut self, mut files: Vec<Arc<File>>) {
        files.append(&mut self.unsynced);
        self.unsynced = files;
    }
}
