//! Takes over the log of a dead process: ends what it left open, so that its finals can be shipped.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::{fs, io};

use anyhow::{Context, bail};
use protocol::ids::WriterId;
use protocol::record::frame::{self, Entry, MAX_FRAME, OVERHEAD, Stop};
use protocol::record::recovery::Recovery;
use protocol::usage::Record;
use tracing::warn;

use super::appender::{Appender, LARGEST};
use super::book::{Book, Position};
use super::folder::{Folder, Lock};
use super::reader::Stored;
use super::segment::{self, Segment};
use super::slots;

#[cfg(test)]
mod tests;

/// A dead writer's log, ended and locked.
#[derive(Debug)]
pub(crate) struct Adopted {
    /// The log.
    pub(crate) stored: Stored,
    /// Where it is.
    pub(crate) folder: Folder,
    /// The right to it.
    pub(crate) lock: Lock,
    /// The attempts that were lost.
    pub(crate) lost: Vec<Record>,
}

/// Takes over a folder if nobody has it. Blocks. Whatever line this dies at, it can be done again.
pub(crate) fn adopt(writer: WriterId, folder: Folder) -> anyhow::Result<Option<Adopted>> {
    let Some(lock) = folder.claim().context("locking it")? else { return Ok(None) };
    let mut book = Book::default();
    let mut recovery = Recovery::default();
    let mut ends = Vec::new();
    let mut empty = VecDeque::new();
    let numbers = list(&folder)?;
    for number in &numbers {
        if let Some(end) = read_segment(&folder, *number, &mut book, &mut recovery)? {
            ends.push(end);
            // Only what lies behind everything written may be written to.
            empty.clear();
        } else {
            empty.push_back(Segment::reopen_empty(&folder.segments(), *number)?);
        }
    }
    empty.retain(|segment| segment.rest() > LARGEST);
    let lost = recovery.lost(read_slots(&folder)?);
    let next = numbers.last().map_or(1, |last| last + 1);
    ends.extend(append(&lost, Appender::new(folder.segments(), empty, next), &mut book)?);
    shrink(&folder, &ends).context("giving unused room back")?;
    book.synced(Position { segment: book.newest_segment(), offset: u64::MAX });
    book.close();
    let stored = Stored { writer, segments: folder.segments(), book: Arc::new(Mutex::new(book)) };
    Ok(Some(Adopted { stored, folder, lock, lost: lost.into_iter().map(|(_, record)| record).collect() }))
}

/// The segments; none if the process died before it had any, or somebody removes the folder.
fn list(folder: &Folder) -> anyhow::Result<Vec<u64>> {
    match segment::numbers(&folder.segments()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        numbers => numbers.context("listing its segments"),
    }
}

fn read_slots(folder: &Folder) -> anyhow::Result<Vec<protocol::record::slot::Slot>> {
    match slots::read(&folder.slots()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        slots => slots.context("reading its slots"),
    }
}

/// Reads a segment into the book; gives the end of what was written, none if nothing ever was.
fn read_segment(
    folder: &Folder,
    number: u64,
    book: &mut Book,
    recovery: &mut Recovery,
) -> anyhow::Result<Option<Position>> {
    let mut from = 0;
    loop {
        let piece = segment::read(&folder.segments(), number, from, u64::MAX).context("reading a segment")?;
        if from == 0 && piece.entries.is_empty() && piece.stop == Some(Stop::End) {
            return Ok(None);
        }
        from = piece.end;
        for entry in piece.entries {
            match &entry {
                Entry::Opened { after } => book.opened(number, *after),
                Entry::Admitted(admission) => book.noted(0, admission.started_at),
                Entry::Final { sequence, record } => book.noted(*sequence, record.completed_at),
            }
            recovery.read(entry);
        }
        match piece.stop {
            None => {}
            Some(Stop::End) => return Ok(Some(Position { segment: number, offset: from })),
            Some(Stop::Unreadable) => bail!("segment {number} is of another version"),
            Some(stop @ (Stop::Torn | Stop::Cut)) => {
                warn!(segment = number, offset = from, ?stop, "a log segment cannot be read on from here");
                // Nothing is cut off: what is damaged in the middle may have whole frames behind it.
                let length = fs::metadata(segment::path(&folder.segments(), number))?.len();
                return Ok(Some(Position { segment: number, offset: length }));
            }
        }
    }
}

/// Writes the lost finals into the dead writer's own reserve, durably, and gives their end. What is not needed of
/// the reserve is removed.
fn append(lost: &[(u64, Record)], mut appender: Appender, book: &mut Book) -> anyhow::Result<Option<Position>> {
    let mut frames = Vec::with_capacity(lost.len());
    for (sequence, record) in lost {
        let mut bytes = Vec::new();
        frame::encode_final(*sequence, record, &mut bytes).context("encoding a lost record")?;
        frames.push(bytes);
    }
    let needed: u64 = frames.iter().map(|bytes| bytes.len() as u64).sum();
    if needed > 0 && appender.room_after(0).is_none_or(|room| room < needed) {
        let size = needed + (MAX_FRAME + OVERHEAD) as u64 + LARGEST;
        let number = appender.number();
        appender.add(Segment::create(appender.folder(), number, size).context("making room for lost records")?);
    }
    for ((sequence, record), bytes) in lost.iter().zip(&frames) {
        appender.append(book, bytes).context("writing a lost record")?;
        book.noted(*sequence, record.completed_at);
    }
    for file in appender.dirty() {
        file.sync_data().context("making lost records durable")?;
    }
    appender.discard_spares().context("removing the reserve")?;
    Ok((!lost.is_empty()).then(|| appender.position()))
}

/// Leaves the folder no larger than its entries, so that a process that dies again and again does not fill the disk.
/// The slots have done their duty: every call has its final.
fn shrink(folder: &Folder, ends: &[Position]) -> io::Result<()> {
    for end in ends {
        segment::trim(&folder.segments(), *end)?;
    }
    match fs::remove_file(folder.slots()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}
