//! The record log of this process: admissions and finals, appended under one short lock.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::record::appender::{Appender, LARGEST, Syncing};
use crate::record::book::Book;
use crate::record::disk::Disk;
use crate::record::frame::{self, TooLarge};
use crate::record::segment::Segment;
use crate::usage::{Admission, Record};

#[cfg(test)]
mod tests;

/// Longest reason of a failure, in bytes; the rest is cut off before a record is written.
pub const REASON: usize = 64;

/// What a final may take beyond its admission: outcome, times, numbers and a reason of [`REASON`] bytes.
const FINAL_EXTRA: u64 = 768;

/// Bytes of frames that may wait for the disk; above it new calls are refused.
const MAX_UNSYNCED: usize = 32 << 20;

/// Why an attempt cannot be admitted.
#[derive(Debug, thiserror::Error)]
pub enum LogUnwritable {
    /// As many calls are in flight as this process may have.
    #[error("too many calls in flight")]
    Busy,
    /// The reserve would not hold the finals of all calls in flight.
    #[error("no room left in the record log")]
    Full,
    /// The process is stopping and all its calls have ended.
    #[error("the record log is closed")]
    Closed,
    /// The admission is larger than any real one.
    #[error("an admission of {0} bytes is too large")]
    TooLarge(u64),
    /// The disk refuses.
    #[error("the record log cannot be written: {0}")]
    Disk(#[from] io::Error),
}

/// What the log keeps for an attempt in flight.
#[derive(Debug)]
pub struct Ticket {
    segment: u64,
    reserved: u64,
}

/// The log.
#[derive(Debug)]
pub struct Log<D: Disk> {
    state: Mutex<State<D>>,
    book: Arc<Mutex<Book>>,
    segment_size: u64,
    wanted_spares: usize,
}

#[derive(Debug)]
struct State<D: Disk> {
    appender: Appender<D>,
    reserved: u64,
    failed: bool,
}

impl<D: Disk> Log<D> {
    /// Starts the log in segments of this size, with that many in reserve.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn create(appender: Appender<D>, segment_size: u64, wanted_spares: usize) -> io::Result<Self> {
        let state = State { appender, reserved: 0, failed: false };
        let log = Self { state: Mutex::new(state), book: Arc::default(), segment_size, wanted_spares };
        log.refill()?;
        log.state().appender.roll(&mut log.book())?;
        log.refill()?;
        log.sync()?;
        Ok(log)
    }

    /// What the log holds.
    pub fn shared_book(&self) -> Arc<Mutex<Book>> {
        Arc::clone(&self.book)
    }

    /// Writes an admission, if the reserve also holds its final beside those of all calls in flight.
    ///
    /// # Errors
    /// When its final could not surely be written later.
    pub fn admit(&self, admission: &Admission) -> Result<Ticket, LogUnwritable> {
        let mut state = self.state();
        let State { appender, reserved, failed } = &mut *state;
        let mut book = self.book();
        if book.closed() {
            return Err(LogUnwritable::Closed);
        }
        if appender.unsynced() > MAX_UNSYNCED {
            *failed = true;
            return Err(LogUnwritable::Full);
        }
        appender.flush(&mut book).inspect_err(|_| *failed = true)?;
        let size = appender
            .push(|out| frame::encode_admitted(admission, out))
            .map_err(|TooLarge(size)| LogUnwritable::TooLarge(size as u64))?;
        let own = size + FINAL_EXTRA;
        let refused = if own > LARGEST {
            Err(LogUnwritable::TooLarge(size))
        } else if appender.room_after(size).is_none_or(|room| room < *reserved + own) {
            *failed = true;
            Err(LogUnwritable::Full)
        } else {
            *failed = false;
            appender.flush(&mut book).map_err(LogUnwritable::Disk).inspect_err(|_| *failed = true)
        };
        if refused.is_err() {
            appender.pop(size);
        }
        refused?;
        *reserved += own;
        Ok(Ticket { segment: book.admitted(admission.started_at), reserved: own })
    }

    /// Writes a final and gives its sequence. A segment that fails is left for the next in reserve; if the disk takes
    /// it nowhere it waits in memory, and no call is admitted meanwhile.
    ///
    /// The time of its end is set here, under the lock of the book that beats come from: see [`Book::ends_at`].
    ///
    /// # Errors
    /// When it is larger than a frame may be.
    pub fn finish(&self, ticket: &Ticket, record: &mut Record) -> Result<u64, TooLarge> {
        let mut state = self.state();
        let State { appender, reserved, failed } = &mut *state;
        let mut book = self.book();
        record.completed_at = book.ends_at(record.completed_at);
        let sequence = book.last() + 1;
        appender.push(|out| frame::encode_final(sequence, record, out)).inspect_err(|_| book.left())?;
        *failed |= write_somewhere(appender, &mut book).is_err();
        *reserved -= ticket.reserved;
        book.ended(ticket.segment, sequence, record.completed_at);
        Ok(sequence)
    }

    /// Ends the log if no call is in flight; says whether it has ended.
    pub fn close(&self) -> bool {
        // Under the lock of appends, so that no admission slips in behind it.
        let _state = self.state();
        self.book().close()
    }

    /// Whether something was written that is not durable yet.
    pub fn is_dirty(&self) -> bool {
        self.state().appender.unsynced() > 0
    }

    /// Whether finals wait in memory for a disk that takes them.
    pub fn waits(&self) -> bool {
        self.state().appender.waits()
    }

    /// Makes everything written so far durable. Blocks; the lock is not held meanwhile. One at a time.
    ///
    /// # Errors
    /// When the disk refuses; what is not durable was then written again elsewhere, or waits for that.
    pub fn sync(&self) -> io::Result<()> {
        let syncing = self.begin_sync();
        let outcome = syncing.run();
        self.end_sync(&syncing, outcome)
    }

    /// What has to be made durable; frames that wait are written first.
    pub fn begin_sync(&self) -> Syncing<D::File> {
        let mut state = self.state();
        let mut book = self.book();
        state.failed |= write_somewhere(&mut state.appender, &mut book).is_err();
        state.appender.syncing()
    }

    /// Takes note of what became of it.
    ///
    /// # Errors
    /// With the error of that.
    pub fn end_sync(&self, syncing: &Syncing<D::File>, outcome: io::Result<()>) -> io::Result<()> {
        let mut state = self.state();
        let mut book = self.book();
        match &outcome {
            Ok(()) => state.appender.synced(&mut book, syncing),
            Err(_) => {
                state.failed = true;
                // What could not be written goes on waiting, and the error to report is the first one.
                let _ = state.appender.rewrite(&mut book);
            }
        }
        outcome
    }

    /// Whether a segment is missing in the reserve.
    pub fn lacks_spare(&self) -> bool {
        self.spares() < self.wanted_spares
    }

    /// Segments in reserve.
    pub fn spares(&self) -> usize {
        self.state().appender.spares()
    }

    /// Makes the missing segments. Blocks; the lock is not held meanwhile.
    ///
    /// # Errors
    /// When the disk refuses or is full.
    pub fn refill(&self) -> io::Result<()> {
        while self.lacks_spare() {
            let (disk, number) = {
                let mut state = self.state();
                (state.appender.disk().clone(), state.appender.number())
            };
            let spare = Segment::create(&disk, number, self.segment_size)?;
            let mut state = self.state();
            state.appender.add(spare);
            state.failed = false;
        }
        Ok(())
    }

    /// Whether the last admission could be written.
    pub fn writable(&self) -> bool {
        !self.state().failed
    }

    fn state(&self) -> MutexGuard<'_, State<D>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes what waits, if not here then in the next segment.
fn write_somewhere<D: Disk>(appender: &mut Appender<D>, book: &mut Book) -> io::Result<()> {
    appender.flush(book).or_else(|_| {
        appender.roll(book)?;
        appender.flush(book)
    })
}
