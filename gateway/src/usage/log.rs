//! The record log of this process: admissions and finals, appended under one short lock.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use protocol::record::frame;
use protocol::usage::{Admission, Record};
use tokio::sync::Notify;

use super::appender::{Appender, LARGEST};
use super::book::Book;
use super::segment::Segment;

#[cfg(test)]
mod tests;

/// What a final may take beyond its admission: outcome, times, numbers and a reason of [`super::REASON`] bytes.
const FINAL_EXTRA: u64 = 768;

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
pub(crate) struct Ticket {
    segment: u64,
    reserved: u64,
}

/// The log.
#[derive(Debug)]
pub(crate) struct Log {
    state: Mutex<State>,
    book: Arc<Mutex<Book>>,
    segment_size: u64,
    wanted_spares: usize,
    /// Told when more is durable.
    pub(crate) durable: Notify,
}

#[derive(Debug)]
struct State {
    appender: Appender,
    buffer: Vec<u8>,
    reserved: u64,
    failed: bool,
}

impl Log {
    /// Starts the log in segments of this size, with that many in reserve.
    pub(crate) fn create(appender: Appender, segment_size: u64, wanted_spares: usize) -> io::Result<Self> {
        let state = State { appender, buffer: Vec::new(), reserved: 0, failed: false };
        let log = Self {
            state: Mutex::new(state),
            book: Arc::default(),
            segment_size,
            wanted_spares,
            durable: Notify::new(),
        };
        log.refill()?;
        log.state().appender.roll(&mut log.book())?;
        log.refill()?;
        log.sync()?;
        Ok(log)
    }

    /// What the log holds.
    pub(crate) fn shared_book(&self) -> Arc<Mutex<Book>> {
        Arc::clone(&self.book)
    }

    /// Writes an admission, if the reserve also holds its final beside those of all calls in flight.
    pub(crate) fn admit(&self, admission: &Admission) -> Result<Ticket, LogUnwritable> {
        let mut state = self.state();
        let State { appender, buffer, reserved, failed } = &mut *state;
        let mut book = self.book();
        if book.closed() {
            return Err(LogUnwritable::Closed);
        }
        buffer.clear();
        frame::encode_admitted(admission, buffer).map_err(|error| LogUnwritable::TooLarge(error.0 as u64))?;
        let size = buffer.len() as u64;
        let own = size + FINAL_EXTRA;
        if own > LARGEST {
            return Err(LogUnwritable::TooLarge(size));
        }
        if appender.room_after(size).is_none_or(|room| room < *reserved + own) {
            *failed = true;
            return Err(LogUnwritable::Full);
        }
        appender.append(&mut book, buffer).inspect_err(|_| *failed = true)?;
        *failed = false;
        *reserved += own;
        Ok(Ticket { segment: book.admitted(admission.started_at), reserved: own })
    }

    /// Writes a final and gives its sequence. A segment that fails is left for the next in reserve.
    ///
    /// The time of its end is set here, under the lock of the book that beats come from: never before a beat's clock.
    pub(crate) fn finish(&self, ticket: &Ticket, record: &mut Record) -> io::Result<u64> {
        let mut state = self.state();
        let State { appender, buffer, reserved, failed } = &mut *state;
        let mut book = self.book();
        record.completed_at = book.ends_at(record.completed_at);
        let sequence = book.last() + 1;
        buffer.clear();
        let written = frame::encode_final(sequence, record, buffer).map_err(io::Error::other).and_then(|()| {
            appender.append(&mut book, buffer).or_else(|_| {
                *failed = true;
                appender.roll(&mut book)?;
                appender.append(&mut book, buffer)
            })
        });
        if written.is_err() {
            book.left();
            return written.map(|()| sequence);
        }
        *reserved -= ticket.reserved;
        book.ended(ticket.segment, sequence, record.completed_at);
        Ok(sequence)
    }

    /// Ends the log if no call is in flight; says whether it has ended.
    pub(crate) fn close(&self) -> bool {
        // Under the lock of appends, so that no admission slips in behind it.
        let _state = self.state();
        self.book().close()
    }

    /// Whether something was written that is not durable yet.
    pub(crate) fn is_dirty(&self) -> bool {
        self.state().appender.position() != self.book().durable()
    }

    /// Makes everything written so far durable. Blocks; the lock is not held meanwhile.
    pub(crate) fn sync(&self) -> io::Result<()> {
        let (files, position) = {
            let mut state = self.state();
            (state.appender.dirty(), state.appender.position())
        };
        let synced = files.iter().try_for_each(|file| file.sync_data());
        if let Err(error) = synced {
            let mut state = self.state();
            state.failed = true;
            state.appender.still_dirty(files);
            return Err(error);
        }
        self.book().synced(position);
        self.durable.notify_one();
        Ok(())
    }

    /// Whether a segment is missing in the reserve.
    pub(crate) fn lacks_spare(&self) -> bool {
        self.spares() < self.wanted_spares
    }

    /// Segments in reserve.
    pub(crate) fn spares(&self) -> usize {
        self.state().appender.spares()
    }

    /// Makes the missing segments. Blocks; the lock is not held meanwhile.
    pub(crate) fn refill(&self) -> io::Result<()> {
        while self.lacks_spare() {
            let (folder, number) = {
                let mut state = self.state();
                (state.appender.folder().clone(), state.appender.number())
            };
            let spare = Segment::create(&folder, number, self.segment_size)?;
            let mut state = self.state();
            state.appender.add(spare);
            state.failed = false;
        }
        Ok(())
    }

    /// Whether the last admission could be written.
    pub(crate) fn writable(&self) -> bool {
        !self.state().failed
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
