//! Takes over the log of a dead process: ends what it left open, so that its finals can be shipped.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::ops::RangeInclusive;

use serde::de::DeserializeOwned;

use crate::record::appender::{Appender, LARGEST};
use crate::record::book::{Book, Position};
use crate::record::disk::{Disk, DiskFile};
use crate::record::frame::{self, Entry, OVERHEAD, Stop, TooLarge};
use crate::record::recovery::Recovery;
use crate::record::segment::{self, Segment};
use crate::usage::{Record, Written};

#[cfg(test)]
mod tests;

/// A dead writer's log, ended.
#[derive(Debug)]
pub struct Adoption {
    /// What is in it.
    pub book: Book,
    /// The attempts that were lost.
    pub lost: Vec<Record>,
    /// At how many places something unreadable lies between or behind entries.
    pub damaged: u64,
}

/// Why a log cannot be taken over now.
#[derive(Debug, thiserror::Error)]
pub enum Unadoptable {
    /// It was written by another version of this program.
    #[error("segment {0} is of another version")]
    OtherVersion(u64),
    /// A lost record does not fit a frame.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// The disk refuses.
    #[error("{doing}: {error}")]
    Disk {
        /// What was being done.
        doing: &'static str,
        /// Why not.
        error: io::Error,
    },
}

/// Takes over a log that nobody writes to. Blocks. Whatever line this dies at, it can be done again.
///
/// # Errors
/// When it is of another version or the disk refuses.
pub fn adopt<D: Disk>(disk: &D) -> Result<Adoption, Unadoptable> {
    let mut book = Book::default();
    let mut recovery = Recovery::default();
    let mut order = Order::default();
    let (mut ends, mut empty, mut damaged) = (Vec::new(), VecDeque::new(), 0);
    let numbers = disk.numbers().map_err(while_("listing its segments"))?;
    for number in &numbers {
        let take = |entry: Entry, book: &mut Book| {
            order.read(&entry);
            note(*number, &entry, book);
            recovery.read(entry);
        };
        if let Some(end) = read_segment(disk, *number, &mut book, take, &mut damaged)? {
            ends.push(end);
            // Only what lies behind everything written may be written to.
            empty.clear();
        } else {
            empty.push_back(Segment::reopen_empty(disk, *number).map_err(while_("opening its reserve"))?);
        }
    }
    // What was read may be in the page cache alone, and the name of a segment that its writer was just making: nothing
    // of it is told to anybody before it is on disk.
    disk.sync_names().map_err(while_("making the names of its segments durable"))?;
    for end in &ends {
        disk.open(end.segment).and_then(|(file, _)| file.sync()).map_err(while_("making what is there durable"))?;
    }
    book.found(strays(disk, &ends, &order.missing)?);
    empty.retain(|segment| segment.rest() > LARGEST);
    let through = recovery.skip_through();
    let slots = disk.slots().map_err(while_("reading its slots"))?;
    let lost = recovery.lost(slots);
    let next = numbers.last().map_or(1, |last| last + 1);
    let appender = Appender::new(disk.clone(), empty, next, book.last());
    ends.extend(append(&lost, through, appender, &mut book)?);
    shrink(disk, &ends).map_err(while_("giving unused room back"))?;
    let end = Position { segment: book.newest_segment(), offset: u64::MAX };
    book.synced(end, book.last());
    book.close();
    let lost = lost.into_iter().map(|(_, record)| record).collect();
    Ok(Adoption { book, lost, damaged })
}

fn while_(doing: &'static str) -> impl Fn(io::Error) -> Unadoptable {
    move |error| Unadoptable::Disk { doing, error }
}

/// Which sequences are missing where they belong.
#[derive(Debug, Default)]
struct Order {
    /// What was dealt with before the first segment that is there.
    begins: u64,
    last: u64,
    begun: bool,
    missing: Vec<RangeInclusive<u64>>,
}

impl Order {
    fn read(&mut self, entry: &Entry) {
        match entry {
            Entry::Opened { after } if self.begun => {
                if *after < self.begins {
                    // Written again from further back: what was there before is gone, by an error of the disk.
                    self.missing.push(after + 1..=self.begins);
                    self.begins = *after;
                }
                self.passed(*after);
            }
            Entry::Opened { after } => (self.begins, self.last) = (*after, *after),
            Entry::Skipped { through } => self.last = self.last.max(*through),
            Entry::Admitted(_) => {}
            Entry::Final { sequence, .. } => {
                self.passed(sequence.saturating_sub(1));
                self.last = self.last.max(*sequence);
            }
        }
        self.begun = true;
    }

    fn passed(&mut self, last: u64) {
        if last > self.last {
            self.missing.push(self.last + 1..=last);
            self.last = last;
        }
    }
}

/// Notes an entry of a segment in the book.
fn note(number: u64, entry: &Entry, book: &mut Book) {
    if book.newest_segment() != number && !matches!(entry, Entry::Opened { .. }) {
        // The frame that opened it is damaged.
        book.opened(number, book.last());
    }
    match entry {
        // After an error of the disk a segment repeats what is in the one before.
        Entry::Opened { after } => book.opened(number, book.last().max(*after)),
        Entry::Skipped { through } => book.skip(*through),
        Entry::Admitted(admission) => book.noted(0, admission.started_at),
        Entry::Final { sequence, record } => book.noted(*sequence, record.completed_at),
    }
}

/// The finals that are missing where they belong but are found elsewhere: damaged where they were written first, and
/// written again after an error of the disk.
fn strays<D: Disk>(
    disk: &D,
    ends: &[Position],
    missing: &[RangeInclusive<u64>],
) -> Result<BTreeMap<u64, Written>, Unadoptable> {
    let mut found = BTreeMap::new();
    if missing.is_empty() {
        return Ok(found);
    }
    for end in ends {
        let take = |entry: Entry<Written>, _: &mut Book| {
            if let Entry::Final { sequence, record } = entry
                && missing.iter().any(|range| range.contains(&sequence))
            {
                found.insert(sequence, record);
            }
        };
        read_segment(disk, end.segment, &mut Book::default(), take, &mut 0)?;
    }
    Ok(found)
}

/// Reads a segment; gives the end of what was written, none if nothing ever was.
fn read_segment<D: Disk, R: DeserializeOwned>(
    disk: &D,
    number: u64,
    book: &mut Book,
    mut take: impl FnMut(Entry<R>, &mut Book),
    damaged: &mut u64,
) -> Result<Option<Position>, Unadoptable> {
    let (mut from, mut end) = (0, None);
    loop {
        let piece = segment::read(disk, number, from, u64::MAX).map_err(while_("reading a segment"))?;
        *damaged += piece.damaged;
        from = piece.end;
        end = piece.written.or(end);
        piece.entries.into_iter().for_each(|entry| take(entry, book));
        let offset = match piece.stop {
            None => continue,
            Some(Stop::Unreadable) => return Err(Unadoptable::OtherVersion(number)),
            Some(Stop::End) => end,
            // Nothing is cut off that somebody might want to look at.
            Some(Stop::Torn | Stop::Cut) => {
                *damaged += 1;
                Some(u64::MAX)
            }
        };
        return Ok(offset.map(|offset| Position { segment: number, offset }));
    }
}

/// Writes the lost finals, and gives their end. What is not needed of the dead writer's own reserve is removed.
fn append<D: Disk>(
    lost: &[(u64, Record)],
    through: u64,
    mut appender: Appender<D>,
    book: &mut Book,
) -> Result<Option<Position>, Unadoptable> {
    let end = if lost.is_empty() { None } else { Some(write(lost, through, &mut appender, book)?) };
    appender.discard_spares().map_err(while_("removing the reserve"))?;
    Ok(end)
}

/// Writes lost finals durably into the reserve, or into a segment of their own where it does not hold them.
fn write<D: Disk>(
    lost: &[(u64, Record)],
    through: u64,
    appender: &mut Appender<D>,
    book: &mut Book,
) -> Result<Position, Unadoptable> {
    // With the frame that opens a segment.
    let mut needed = OVERHEAD as u64;
    needed += appender.push(|out| {
        frame::encode_skipped(through, out);
        Ok(())
    })?;
    for (sequence, record) in lost {
        needed += appender.push(|out| frame::encode_final(*sequence, record, out))?;
    }
    if appender.room_after(0).is_none_or(|room| room < needed) {
        let number = appender.number();
        let segment = Segment::create(appender.disk(), number, needed);
        appender.add(segment.map_err(while_("making room for lost records"))?);
    }
    book.skip(through);
    appender.flush(book).map_err(while_("writing lost records"))?;
    for (sequence, record) in lost {
        book.noted(*sequence, record.completed_at);
    }
    appender.syncing().run().map_err(while_("making lost records durable"))?;
    Ok(appender.position())
}

/// Leaves the folder no larger than its entries, so that a process that dies again and again does not fill the disk.
/// The slots have done their duty: every call has its final.
fn shrink<D: Disk>(disk: &D, ends: &[Position]) -> io::Result<()> {
    for end in ends.iter().filter(|end| end.offset < u64::MAX) {
        disk.truncate(end.segment, end.offset)?;
    }
    disk.remove_slots()
}
