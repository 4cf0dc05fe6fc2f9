//! The record of each attempt: admitted before it is sent, ended once, whatever happens to this process.
//!
//! An attempt is written to the local log before it is sent and once more when it ends; its counters stand in a slot
//! meanwhile. All of it is in the page cache at once, so that a killed process loses nothing, and on disk some
//! milliseconds later. The call never waits for Redis: a background service ships what is durable.

mod adopt;
mod disk;
mod folder;
mod keeper;
pub mod meter;
mod service;
mod shipper;
mod slots;
mod stream;
mod volume;

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use chrono::TimeDelta;
use protocol::ids::WriterId;
use protocol::record::appender::Appender;
pub use protocol::record::log::LogUnwritable;
use protocol::record::log::{Log, REASON, Ticket};
use protocol::record::settle;
pub use protocol::record::settle::Counters;
use protocol::record::slot::Slot;
use protocol::usage::{Admission, Facts, Outcome, Record};

use crate::clock::Clock;
use crate::metrics::{Metrics, Underway};
use disk::Files;
use folder::{Folder, Lock};
pub use service::Service;
use slots::Slots;
use tokio::sync::Notify;

/// Smallest segment: some of the largest frames and the reserve's arithmetic must fit.
const SMALLEST_SEGMENT: u64 = 64 * 1024;

/// What the reserve holds for each call that may be in flight.
const RESERVE_PER_CALL: u64 = 2048;

/// Reason of an attempt whose client went away before anything reached it.
pub const ABORTED: &str = "ABORTED";

/// The sizes of a log and where it lies.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Folder of the logs of all gateways of this machine.
    pub folder: PathBuf,
    /// Bytes of a segment.
    pub segment: u64,
    /// Calls in flight at once.
    pub max_calls: usize,
    /// How long confirmed segments stay.
    pub keep: std::time::Duration,
}

/// The log of this process; clones share it.
#[derive(Clone)]
pub struct UsageLog {
    shared: Arc<Shared>,
}

struct Shared {
    writer: WriterId,
    folder: Folder,
    _lock: Lock,
    log: Log<Files>,
    /// Told when more of the log is durable.
    durable: Notify,
    slots: Slots,
    settings: Settings,
    clock: Clock,
    metrics: Arc<Metrics>,
    slots_failed: AtomicBool,
}

/// An attempt in flight. Dropped without [`Flight::finish`], it is recorded as aborted with its last counters.
pub struct Flight {
    shared: Arc<Shared>,
    slot: u32,
    ticket: Ticket,
    /// None once it has ended.
    admission: Option<Admission>,
    started: Instant,
    counters: Counters,
    _underway: Underway,
}

impl UsageLog {
    /// Makes the log of a new writer.
    ///
    /// # Errors
    /// When the folder cannot be written or the disk has no room for the first segments.
    pub fn open(settings: Settings, clock: Clock, metrics: Arc<Metrics>) -> io::Result<Self> {
        let calls = u32::try_from(settings.max_calls).map_err(io::Error::other)?;
        if settings.segment < SMALLEST_SEGMENT {
            return Err(io::Error::other(format!("a log segment has at least {SMALLEST_SEGMENT} bytes")));
        }
        let writer = WriterId::random();
        let (folder, lock) = Folder::create(&settings.folder, writer)?;
        let slots = Slots::create(&folder.slots(), calls)?;
        let appender = Appender::new(Files::of(&folder), VecDeque::new(), 1, 0);
        let wanted = (u64::from(calls) * RESERVE_PER_CALL).div_ceil(settings.segment).max(1);
        let log = Log::create(appender, settings.segment, usize::try_from(wanted).map_err(io::Error::other)?)?;
        metrics.record.writable.set(1);
        let (durable, slots_failed) = (Notify::new(), AtomicBool::new(false));
        let shared =
            Shared { writer, folder, _lock: lock, log, durable, slots, settings, clock, metrics, slots_failed };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Whose sequence the records of this process have.
    #[must_use]
    pub fn writer(&self) -> WriterId {
        self.shared.writer
    }

    /// Writes down that an attempt is about to be sent. Does not wait for the disk.
    ///
    /// # Errors
    /// When its final could not surely be written later: the call must be refused.
    pub fn admit(&self, admission: Admission) -> Result<Flight, LogUnwritable> {
        let slot = self.shared.slots.take().ok_or(LogUnwritable::Busy)?;
        match self.shared.log.admit(&admission) {
            Ok(ticket) => {
                let underway = self.shared.metrics.begin(admission.chute);
                Ok(Flight {
                    shared: Arc::clone(&self.shared),
                    slot,
                    ticket,
                    admission: Some(admission),
                    started: Instant::now(),
                    counters: Counters::default(),
                    _underway: underway,
                })
            }
            Err(refused) => {
                self.shared.slots.give(slot);
                Err(refused)
            }
        }
    }
}

impl Flight {
    /// When it began, by the clock that only goes forward.
    #[must_use]
    pub fn started(&self) -> Instant {
        self.started
    }

    /// How long it has taken, in whole microseconds. Times of a record are made from this: the clock of the day may be
    /// set meanwhile.
    #[must_use]
    pub fn took(&self) -> TimeDelta {
        TimeDelta::microseconds(i64::try_from(self.started.elapsed().as_micros()).unwrap_or(i64::MAX))
    }

    /// Notes what was counted, *before* the bytes it was counted from go to the client: after a kill the record says
    /// at least what the client got, at most one write more.
    pub fn progress(&mut self, counters: Counters) {
        self.counters = counters;
        let Some(admission) = &self.admission else { return };
        let updated_at = admission.started_at + self.took();
        let slot = Slot { invocation: admission.invocation, updated_at, counters };
        if let Err(error) = self.shared.slots.write(self.slot, &slot)
            && !self.shared.slots_failed.swap(true, Ordering::Relaxed)
        {
            tracing::error!(%error, "cannot write the counters of calls in flight; said once");
        }
    }

    /// Writes the final entry of an attempt that took so long and gives its sequence; none if it could be written nowhere, which is counted, and the
    /// attempt is then settled by its slot when the log is next opened.
    pub fn finish(
        mut self,
        outcome: Outcome,
        took: TimeDelta,
        error: Option<&str>,
        facts: Facts,
        delivered: bool,
    ) -> Option<u64> {
        self.end(outcome, took, error, facts, delivered)
    }

    fn end(
        &mut self,
        outcome: Outcome,
        took: TimeDelta,
        error: Option<&str>,
        facts: Facts,
        delivered: bool,
    ) -> Option<u64> {
        let admission = self.admission.take()?;
        let completed_at = admission.started_at + took;
        let error = error.map(|reason| reason[..reason.floor_char_boundary(REASON)].to_owned());
        let mut record = Record { admission, outcome, completed_at, error, delivered, facts };
        match self.shared.log.finish(&self.ticket, &mut record) {
            Ok(sequence) => {
                self.shared.metrics.count_record(&record);
                self.shared.slots.give(self.slot);
                Some(sequence)
            }
            Err(error) => {
                self.shared.metrics.record.dropped.inc();
                tracing::error!(%error, invocation.id = %record.admission.invocation, "cannot write a record");
                None
            }
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let Some(admission) = &self.admission else { return };
        let (took, counters) = (self.took(), self.counters);
        let facts = settle::facts(admission.kind, admission.estimate, &counters, took);
        let error = (!counters.delivered).then_some(ABORTED);
        self.end(Outcome::Aborted, took, error, facts, counters.delivered);
    }
}
