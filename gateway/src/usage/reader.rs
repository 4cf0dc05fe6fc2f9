//! Reads a writer's finals off its segments, in their sequence.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use protocol::ids::WriterId;
use protocol::record::frame::Stop;
use tracing::error;

use super::book::{Book, Position};
use super::segment;

/// A log as it lies on disk, of this process or of a dead one.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    /// Whose it is.
    pub(crate) writer: WriterId,
    /// Where its segments lie.
    pub(crate) segments: PathBuf,
    /// What is in them.
    pub(crate) book: Arc<Mutex<Book>>,
}

/// Some finals, and where the next ones are.
#[derive(Debug)]
pub(crate) struct Batch {
    /// Sequences and records as they were written; empty if nothing more is durable.
    pub(crate) finals: Vec<(u64, Vec<u8>)>,
    /// Where to go on.
    pub(crate) position: Position,
}

impl Stored {
    /// The book, for a moment.
    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads finals from the sequence `next` on, starting at a position at or before it. Blocks.
    pub(crate) fn read(&self, mut position: Position, mut next: u64) -> io::Result<Batch> {
        let mut finals = Vec::new();
        loop {
            let limit = self.book().limit(position.segment);
            if position.offset >= limit {
                break;
            }
            let piece = segment::read_finals(&self.segments, position.segment, position.offset, limit)?;
            position.offset = piece.end;
            for (sequence, text) in piece.entries {
                if sequence >= next {
                    next = sequence + 1;
                    finals.push((sequence, text));
                }
            }
            if !finals.is_empty() {
                break;
            }
            let Some(stop) = piece.stop else { continue };
            if stop != Stop::End {
                error!(writer.id = %self.writer, segment = position.segment, ?stop, "a log segment is damaged");
            }
            let following = if limit == u64::MAX { self.book().following(position.segment) } else { None };
            let Some(following) = following else { break };
            position = following;
        }
        Ok(Batch { finals, position })
    }
}
