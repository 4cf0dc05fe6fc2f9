//! Tests of `log`: the reserve holds every final, and times never run behind a beat.

use std::collections::{BTreeSet, VecDeque};

use chrono::TimeDelta;
use proptest::prelude::*;

use super::*;
use crate::ids::WriterId;
use crate::record::frame::Entry;
use crate::record::reader::Stored;
use crate::record::sample;
use crate::record::segment;
use crate::record::settle::Counters;
use crate::record::simulator::chance::Chance;
use crate::record::simulator::disk::{SimulatedDisk, failing, sound};
use crate::usage::{self, Facts, Outcome};

const SEGMENT: u64 = 64 * 1024;

fn log(disk: &SimulatedDisk) -> Log<SimulatedDisk> {
    Log::create(Appender::new(disk.clone(), VecDeque::new(), 1, 0), SEGMENT, 1).unwrap()
}

/// The largest final that an admission can come to.
fn final_of(admission: Admission) -> Record {
    let completed_at = admission.started_at + TimeDelta::microseconds(1);
    let number = u64::MAX;
    Record {
        outcome: Outcome::Finished,
        completed_at,
        error: Some("\u{1}".repeat(REASON)),
        delivered: false,
        facts: Facts { it: number, ot: number, tokens: number, ttft: Some(-f64::MIN_POSITIVE), tt: -f64::MIN_POSITIVE },
        admission,
    }
}

fn entries(disk: &SimulatedDisk) -> Vec<Entry> {
    let mut found = Vec::new();
    for number in disk.numbers().unwrap() {
        let mut from = 0;
        loop {
            let piece = segment::read(disk, number, from, u64::MAX).unwrap();
            from = piece.end;
            found.extend(piece.entries);
            if piece.stop.is_some() {
                break;
            }
        }
    }
    found
}

fn finals(disk: &SimulatedDisk) -> Vec<u64> {
    let sequence = |entry| match entry {
        Entry::Final { sequence, .. } => Some(sequence),
        Entry::Opened { .. } | Entry::Admitted(_) | Entry::Skipped { .. } => None,
    };
    entries(disk).into_iter().filter_map(sequence).collect()
}

#[test]
fn without_room_for_a_new_segment_admissions_are_refused_and_all_finals_pass() {
    let disk = failing("disk: full");
    let log = log(&disk);
    disk.weather.calm.set(false);

    let mut flights = Vec::new();
    let refused = loop {
        let admission = sample::admission(0);
        match log.admit(&admission) {
            Ok(ticket) => flights.push((ticket, final_of(admission))),
            Err(refused) => break refused,
        }
        assert!(log.refill().is_err() || !log.lacks_spare());
    };
    assert!(matches!(refused, LogUnwritable::Full), "{refused}");
    assert!(!log.writable());
    assert!(flights.len() > 20, "{} calls before the reserve was needed", flights.len());
    let count = flights.len() as u64;
    for (ticket, mut record) in flights {
        log.finish(&ticket, &mut record).unwrap();
    }
    assert_eq!(finals(&disk), (1..=count).collect::<Vec<_>>());

    disk.weather.calm.set(true);
    log.refill().unwrap();
    assert!(log.writable());
    log.admit(&sample::admission(0)).unwrap();
}

#[test]
fn a_closed_log_admits_nothing_and_does_not_close_over_a_call() {
    let disk = sound();
    let log = log(&disk);
    let admission = sample::admission(0);
    let ticket = log.admit(&admission).unwrap();
    assert!(!log.close());
    log.finish(&ticket, &mut final_of(admission)).unwrap();
    assert!(log.close());
    assert!(matches!(log.admit(&sample::admission(0)), Err(LogUnwritable::Closed)));
}

#[test]
fn an_admission_larger_than_any_real_one_is_refused() {
    let disk = sound();
    let mut admission = sample::admission(0);
    admission.function = "f".repeat(9000);
    assert!(matches!(log(&disk).admit(&admission), Err(LogUnwritable::TooLarge(_))));
}

#[test]
fn the_largest_admission_leaves_its_final_room_in_a_frame() {
    let admission_of = |size: u64| {
        let mut admission = sample::admission(0);
        let mut frame = Vec::new();
        frame::encode_admitted(&admission, &mut frame).unwrap();
        let padding = size as usize - (frame.len() - admission.function.len());
        admission.function = "f".repeat(padding);
        admission
    };
    let largest = LARGEST - FINAL_EXTRA;
    assert!(log(&sound()).admit(&admission_of(largest)).is_ok());
    let refused = log(&sound()).admit(&admission_of(largest + 1));
    assert!(matches!(refused, Err(LogUnwritable::TooLarge(size)) if size == largest + 1));
}

#[test]
fn no_call_is_admitted_while_too_much_waits_to_become_durable() {
    let disk = sound();
    let log = Log::create(Appender::new(disk.clone(), VecDeque::new(), 1, 0), 64 << 20, 1).unwrap();
    let mut large = sample::admission(0);
    large.function = "f".repeat(250_000);
    let write = |frames: usize| {
        (0..frames).for_each(|_| {
            log.state().appender.push(|out| frame::encode_admitted(&large, out)).unwrap();
        });
    };
    write(MAX_UNSYNCED / 260_000);
    log.admit(&sample::admission(0)).unwrap();
    write(8);
    assert!(log.state().appender.unsynced() > MAX_UNSYNCED);
    assert!(matches!(log.admit(&sample::admission(0)), Err(LogUnwritable::Full)));
    assert!(!log.writable());
    log.sync().unwrap();
    log.admit(&sample::admission(0)).unwrap();
}

#[test]
fn a_disk_that_refuses_what_waits_once_more_makes_the_log_unwritable_again() {
    let disk = failing("disk: write refused");
    let log = log(&disk);
    let ticket = log.admit(&sample::admission(0)).unwrap();
    disk.weather.calm.set(false);
    log.finish(&ticket, &mut final_of(sample::admission(0))).unwrap();
    disk.weather.calm.set(true);
    log.refill().unwrap();
    assert!(log.writable() && log.waits());
    disk.weather.calm.set(false);
    log.begin_sync();
    assert!(!log.writable());
}

#[test]
fn a_final_behind_a_beat_gets_the_time_of_the_beat() {
    let disk = sound();
    let log = log(&disk);
    let admission = sample::admission(0);
    let ticket = log.admit(&admission).unwrap();
    let mut record = final_of(admission);
    let clock = record.completed_at + TimeDelta::milliseconds(9);
    let beat = log.book().beat(clock);
    let sequence = log.finish(&ticket, &mut record).unwrap();
    assert!(sequence > beat.sequence);
    assert_eq!(record.completed_at, clock);
}

#[test]
fn only_what_was_synced_counts_as_durable() {
    let disk = sound();
    let log = log(&disk);
    assert!(!log.is_dirty());
    let before = log.book().durable();
    log.admit(&sample::admission(0)).unwrap();
    assert!(log.is_dirty());
    assert_eq!(log.book().durable(), before);
    log.sync().unwrap();
    assert!(!log.is_dirty());
    assert!(log.book().durable() > before);
}

#[test]
fn after_a_failed_fsync_what_was_not_durable_is_written_again() {
    for fault in ["disk: fsync refused", "disk: fsync refused and pages dropped"] {
        let disk = failing(fault);
        let log = log(&disk);
        let first = log.admit(&sample::admission(0)).unwrap();
        log.finish(&first, &mut final_of(sample::admission(0))).unwrap();
        log.sync().unwrap();
        let second = log.admit(&sample::admission(1)).unwrap();
        log.finish(&second, &mut final_of(sample::admission(1))).unwrap();
        disk.weather.calm.set(false);
        assert!(log.sync().is_err());
        disk.weather.calm.set(true);
        assert!(log.is_dirty() && !log.writable());
        assert_eq!(log.book().reach(1).last, Some(1), "nothing new is durable");
        log.refill().unwrap();
        log.sync().unwrap();
        disk.folder.borrow_mut().crash(&mut Chance::new(7));
        let read: BTreeSet<u64> = finals(&disk).into_iter().collect();
        assert_eq!(read, BTreeSet::from([1, 2]), "{fault}");
        let stored = Stored { writer: WriterId::random(), disk, book: log.shared_book() };
        let start = log.book().holding(1).unwrap();
        let mut batch = stored.read(start, 1).unwrap();
        assert_eq!((batch.entries.len(), batch.next), (1, 2));
        batch = stored.read(batch.position, 2).unwrap();
        assert!(matches!(batch.entries[..], [usage::Entry::Final { sequence: 2, .. }]), "{batch:?}");
    }
}

#[test]
fn finals_that_the_disk_takes_nowhere_wait_and_no_call_is_admitted_meanwhile() {
    let disk = failing("disk: write refused");
    let log = log(&disk);
    let ticket = log.admit(&sample::admission(0)).unwrap();
    disk.weather.calm.set(false);
    assert_eq!(log.finish(&ticket, &mut final_of(sample::admission(0))).unwrap(), 1);
    assert!(log.waits() && !log.writable());
    assert!(matches!(log.admit(&sample::admission(1)), Err(LogUnwritable::Disk(_))));
    assert_eq!(finals(&disk), [] as [u64; 0]);
    disk.weather.calm.set(true);
    log.refill().unwrap();
    log.sync().unwrap();
    assert!(!log.waits());
    assert_eq!(finals(&disk), [1]);
    log.admit(&sample::admission(1)).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_reserve_always_holds_the_finals_of_all_calls_in_flight(
        steps in proptest::collection::vec((any::<bool>(), any::<usize>(), 1_usize..4000), 0..400),
        refilled in any::<bool>(),
    ) {
        let disk = sound();
        let log = log(&disk);
        let mut flights: Vec<(Ticket, Record)> = Vec::new();
        let mut last = 0;
        for (admit, pick, size) in steps {
            if admit || flights.is_empty() {
                let mut admission = sample::admission(0);
                admission.function = "f".repeat(size);
                if let Ok(ticket) = log.admit(&admission) {
                    flights.push((ticket, final_of(admission)));
                }
            } else {
                let (ticket, mut record) = flights.swap_remove(pick % flights.len());
                last += 1;
                prop_assert_eq!(log.finish(&ticket, &mut record).unwrap(), last);
            }
            if refilled {
                log.refill().unwrap();
            }
        }
        for (ticket, mut record) in flights {
            last += 1;
            prop_assert_eq!(log.finish(&ticket, &mut record).unwrap(), last);
        }
        prop_assert_eq!(finals(&disk), (1..=last).collect::<Vec<_>>());
    }
}

#[test]
fn the_facts_of_a_dropped_call_fit_what_is_reserved() {
    let counters = Counters { chunks: u64::MAX, bytes: u64::MAX, ..Counters::default() };
    let admission = sample::admission(0);
    let facts = crate::record::settle::facts(admission.kind, admission.estimate, &counters, TimeDelta::microseconds(1));
    let mut bytes = Vec::new();
    frame::encode_admitted(&admission, &mut bytes).unwrap();
    let size = bytes.len() as u64;
    bytes.clear();
    frame::encode_final(u64::MAX, &Record { facts, ..final_of(admission) }, &mut bytes).unwrap();
    assert!(bytes.len() as u64 <= size + FINAL_EXTRA, "{} bytes", bytes.len());
}
