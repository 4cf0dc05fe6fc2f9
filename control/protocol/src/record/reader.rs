//! Reads a writer's finals off its segments, in their sequence, and finds where some are missing.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};

use crate::ids::WriterId;
use crate::record::book::{Book, Position, Reach};
use crate::record::disk::Disk;
use crate::record::frame;
use crate::record::segment;
use crate::usage::{Entry, Written};

/// A log as it lies on disk, of a live process or of a dead one.
#[derive(Clone, Debug)]
pub struct Stored<D> {
    /// Whose it is.
    pub writer: WriterId,
    /// Where its segments lie.
    pub disk: D,
    /// What is in them.
    pub book: Arc<Mutex<Book>>,
}

/// Some finals and gaps, and where the next ones are.
#[derive(Debug)]
pub struct Batch {
    /// In their sequence without gaps; empty if nothing more is durable.
    pub entries: Vec<Entry<Written>>,
    /// The sequence after them.
    pub next: u64,
    /// Where to go on.
    pub position: Position,
}

impl<D: Disk> Stored<D> {
    /// The book, for a moment.
    pub fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads finals from the sequence `next` on, starting at a position at or before it. Blocks.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn read(&self, position: Position, next: u64) -> io::Result<Batch> {
        let mut batch = Batch { entries: Vec::new(), next, position };
        while batch.entries.is_empty() {
            let reach = self.book().reach(batch.position.segment);
            let end = self.read_piece(&mut batch, reach)?;
            if !end || !batch.entries.is_empty() {
                continue;
            }
            if let Some(last) = reach.last.filter(|last| *last >= batch.next) {
                self.gap(&mut batch, last, true);
                break;
            }
            let following = if reach.complete { self.book().following(batch.position.segment) } else { None };
            let Some(following) = following else { break };
            batch.position = following;
        }
        Ok(batch)
    }

    /// Reads on in a segment; says whether it is read as far as it may be.
    fn read_piece(&self, batch: &mut Batch, reach: Reach) -> io::Result<bool> {
        let Position { segment, offset } = batch.position;
        if offset >= reach.limit {
            return Ok(true);
        }
        let piece = segment::read::<_, Written>(&self.disk, segment, offset, reach.limit)?;
        batch.position.offset = piece.end;
        for entry in piece.entries {
            match entry {
                frame::Entry::Opened { after } => self.gap(batch, after, true),
                frame::Entry::Admitted(_) => {}
                frame::Entry::Skipped { through } => self.gap(batch, through, false),
                frame::Entry::Final { sequence, record } => {
                    self.gap(batch, sequence.saturating_sub(1), true);
                    if sequence == batch.next {
                        batch.next += 1;
                        batch.entries.push(Entry::Final { writer: self.writer, sequence, record });
                    }
                }
            }
        }
        Ok(piece.stop.is_some())
    }

    /// There are no finals up to `through` where they belong.
    fn gap(&self, batch: &mut Batch, through: u64, damaged: bool) {
        let writer = self.writer;
        while batch.next <= through {
            let from = batch.next;
            let stray = self.book().stray(from..=through);
            let end = stray.as_ref().map_or(through, |(sequence, _)| sequence - 1);
            if from <= end {
                batch.entries.push(Entry::Gap { writer, from, through: end, damaged });
            }
            batch.next = end + 1;
            if let Some((sequence, record)) = stray {
                batch.entries.push(Entry::Final { writer, sequence, record });
                batch.next = sequence + 1;
            }
        }
    }

    /// Deletes what is confirmed up to the mark and older than `before`. Blocks.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn sweep(&self, mark: u64, before: DateTime<Utc>) -> io::Result<()> {
        loop {
            let Some(number) = self.book().deletable(mark, before) else { return Ok(()) };
            self.disk.remove(number)?;
            self.book().forget(number);
        }
    }
}
