//! One gateway process: calls with streams, the log's keeper, the shipper, the taking over of logs.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::Bug;
use super::desk::Desk;
use super::disk::{Process, SimulatedDisk, SimulatedFile};
use super::redis::{Lost, Redis};
use crate::ids::WriterId;
use crate::record::adoption;
use crate::record::appender::{Appender, Syncing};
use crate::record::batch::AttemptKey;
use crate::record::log::{Log, LogUnwritable, Ticket};
use crate::record::reader::{Batch, Stored};
use crate::record::settle::{self, Counters};
use crate::record::shipper::{Shipper, Step};
use crate::record::slot::Slot;
use crate::usage::{Admission, Entry, Facts, Outcome, Record, Written};

/// Bytes of a segment.
const SEGMENT: u64 = 48 * 1024;
/// Calls in flight at once.
const CALLS: usize = 12;

/// A call in flight.
#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) key: AttemptKey,
    admission: Admission,
    ticket: Ticket,
    slot: usize,
    /// By clocks that nobody sets.
    started: Duration,
    pub(crate) chunks: u64,
}

/// What the shipper's last step brought, on its way back.
#[derive(Debug)]
enum Reply {
    Connected(Result<u64, Lost>),
    Marks(Result<(Vec<Option<u64>>, usize), Lost>),
    Read(usize, std::io::Result<Batch>),
    Added(usize, Result<(), Lost>),
    Swept,
}

/// The process.
pub(crate) struct Gateway {
    pub(crate) writer: WriterId,
    pub(crate) process: Rc<Process>,
    pub(crate) disk: SimulatedDisk,
    pub(crate) log: Log<SimulatedDisk>,
    pub(crate) shipper: Shipper<SimulatedDisk>,
    pub(crate) desk: Desk,
    pub(crate) flights: Vec<Flight>,
    pub(crate) syncing: Option<Syncing<SimulatedFile>>,
    /// What is in the log since the last sync that began; true for finals.
    pub(crate) unsynced: Vec<(AttemptKey, bool)>,
    pub(crate) in_sync: Vec<(AttemptKey, bool)>,
    /// Whether frames waited for the disk after the last event, and whether that was to write them again.
    pub(crate) waited: bool,
    pub(crate) rewriting: bool,
    free: Vec<usize>,
    run: u64,
    reply: Option<Reply>,
    pub(crate) skew: TimeDelta,
    bug: Option<Bug>,
}

impl Gateway {
    pub(crate) fn start(
        writer: WriterId,
        disk: SimulatedDisk,
        (now, quota): (Duration, u64),
        bug: Option<Bug>,
    ) -> std::io::Result<Self> {
        let log = Log::create(Appender::new(disk.clone(), VecDeque::new(), 1, 0), SEGMENT, 1)?;
        let stored = Stored { writer, disk: disk.clone(), book: log.shared_book() };
        Ok(Self {
            writer,
            process: Rc::clone(&disk.process),
            disk,
            log,
            shipper: Shipper::new(stored, now),
            desk: Desk::new(writer, quota),
            flights: Vec::new(),
            syncing: None,
            unsynced: Vec::new(),
            in_sync: Vec::new(),
            waited: false,
            rewriting: false,
            free: (0..CALLS).rev().collect(),
            run: 0,
            reply: None,
            skew: TimeDelta::zero(),
            bug,
        })
    }

    pub(crate) fn clock(&self, base: DateTime<Utc>) -> DateTime<Utc> {
        base + self.skew
    }

    /// Admits a call, as `UsageLog::admit` does.
    pub(crate) fn admit(&mut self, admission: Admission, started: Duration) -> Result<AttemptKey, LogUnwritable> {
        let key = (admission.invocation, admission.started_at);
        let slot = self.free.pop().ok_or(LogUnwritable::Busy)?;
        match self.log.admit(&admission) {
            Ok(ticket) => {
                self.unsynced.push((key, false));
                self.flights.push(Flight { key, admission, ticket, slot, started, chunks: 0 });
                Ok(key)
            }
            Err(refused) => {
                self.free.push(slot);
                Err(refused)
            }
        }
    }

    /// Notes a chunk and then gives it to the client; how many the client has.
    pub(crate) fn relay(&mut self, index: usize, now: Duration) -> Option<u64> {
        let flight = &mut self.flights[index];
        flight.chunks += 1;
        if self.bug != Some(Bug::NoSlots) {
            let counters = counters(flight.chunks);
            let slot = Slot { invocation: flight.key.0, updated_at: flight.key.1 + flight.took(now), counters };
            self.disk.write_slot(flight.slot, &slot).ok()?;
        }
        Some(flight.chunks)
    }

    /// Ends a call, as `Flight::finish` does.
    pub(crate) fn finish(&mut self, index: usize, outcome: Outcome, now: Duration) -> Option<(AttemptKey, Record)> {
        let flight = self.flights.swap_remove(index);
        let took = flight.took(now);
        let facts = facts(&flight, took);
        let (delivered, completed_at) = (flight.chunks > 0, flight.key.1 + took);
        let error = (!delivered && outcome != Outcome::Finished).then(|| "ABORTED".to_owned());
        let mut record = Record { admission: flight.admission, outcome, completed_at, error, delivered, facts };
        let sequence = self.log.finish(&flight.ticket, &mut record).ok()?;
        let moved = record.completed_at - completed_at;
        assert!(
            (TimeDelta::zero()..=TimeDelta::seconds(1)).contains(&moved),
            "paid for {moved} by which a clock was set"
        );
        self.desk.leave(delivered.then_some(sequence), now, self.bug);
        self.unsynced.push((flight.key, true));
        self.free.push(flight.slot);
        Some((flight.key, record))
    }

    /// One half of a step of the shipper: does what it says, or brings the answer.
    pub(crate) fn ship(&mut self, redis: &mut Redis, now: Duration, clock: DateTime<Utc>) -> bool {
        if let Some(reply) = self.reply.take() {
            self.answer(reply, redis, now);
            return true;
        }
        self.reply = match self.shipper.step(now, clock) {
            Step::Connect => Some(Reply::Connected(redis.connect())),
            Step::ReadMarks(writers) => Some(Reply::Marks(redis.marks(self.run, &writers))),
            Step::Read(index, stored, cursor) => Some(Reply::Read(index, stored.read(cursor.position, cursor.next))),
            Step::Add(entries) => Some(self.add(&entries, redis)),
            Step::Sweep(logs) => {
                let ahead = u64::from(self.bug == Some(Bug::DeletesEarly)) * 3;
                for (stored, mark) in logs {
                    // A refusal is tried again at the next sweep.
                    let _ = stored.sweep(mark + ahead, clock);
                }
                Some(Reply::Swept)
            }
            Step::Again => return true,
            Step::Rest => return false,
        };
        true
    }

    fn add(&self, entries: &[Entry<Written>], redis: &mut Redis) -> Reply {
        Reply::Added(entries.len(), redis.add(self.run, entries))
    }

    fn answer(&mut self, reply: Reply, redis: &mut Redis, now: Duration) {
        let lost = match reply {
            Reply::Connected(Ok(run)) => {
                self.run = run;
                self.shipper.connected(Some(&run.to_string()), now);
                false
            }
            Reply::Marks(Ok((marks, length))) => {
                self.shipper.marks(marks, length, now);
                false
            }
            Reply::Added(count, Ok(())) => {
                self.shipper.added(count, now);
                false
            }
            Reply::Read(index, read) => {
                if let Ok(entries) = self.shipper.read(index, read)
                    && !entries.is_empty()
                {
                    self.reply = Some(self.add(&entries, redis));
                }
                false
            }
            Reply::Swept => false,
            Reply::Connected(Err(Lost)) | Reply::Marks(Err(Lost)) | Reply::Added(_, Err(Lost)) => true,
        };
        if lost {
            self.shipper.failed(now, 0.75);
        }
    }

    /// Whether a log may be added or forgotten now.
    pub(crate) fn between_steps(&self) -> bool {
        self.reply.is_none()
    }

    /// Takes over a dead writer's log; how many were lost, and at how many places it is damaged.
    pub(crate) fn adopt(&mut self, writer: WriterId, disk: SimulatedDisk, now: Duration) -> Option<(usize, u64)> {
        let adoption = adoption::adopt(&disk).ok()?;
        let stored = Stored { writer, disk, book: Arc::new(Mutex::new(adoption.book)) };
        self.shipper.add(stored, now);
        Some((adoption.lost.len(), adoption.damaged))
    }
}

impl Flight {
    fn took(&self, now: Duration) -> TimeDelta {
        TimeDelta::from_std(now - self.started).expect("a run takes no ages")
    }
}

fn counters(chunks: u64) -> Counters {
    Counters { chunks, bytes: chunks * 4, first_chunk_micros: Some(1000), delivered: true, ..Counters::default() }
}

fn facts(flight: &Flight, took: TimeDelta) -> Facts {
    let counters = if flight.chunks > 0 { counters(flight.chunks) } else { Counters::default() };
    settle::facts(flight.admission.kind, flight.admission.estimate, &counters, took)
}
