//! Tests of `log`: the reserve holds every final, and times never run behind a beat.

use std::collections::VecDeque;
use std::fs;

use chrono::TimeDelta;
use proptest::prelude::*;
use protocol::record::frame::Entry;
use protocol::record::settle::Counters;
use protocol::usage::{Facts, Outcome};

use super::*;
use crate::usage::sample;
use crate::usage::segment;

const SEGMENT: u64 = 64 * 1024;

fn log(folder: &std::path::Path) -> Log {
    Log::create(Appender::new(folder.to_owned(), VecDeque::new(), 1), SEGMENT, 1).unwrap()
}

/// The largest final that an admission can come to.
fn final_of(admission: Admission) -> Record {
    let completed_at = admission.started_at + TimeDelta::microseconds(1);
    let number = u64::MAX;
    Record {
        outcome: Outcome::Finished,
        completed_at,
        error: Some("\u{1}".repeat(crate::usage::REASON)),
        delivered: false,
        facts: Facts { it: number, ot: number, tokens: number, ttft: Some(-f64::MIN_POSITIVE), tt: -f64::MIN_POSITIVE },
        admission,
    }
}

fn entries(folder: &std::path::Path) -> Vec<Entry> {
    let mut found = Vec::new();
    for number in segment::numbers(folder).unwrap() {
        let mut from = 0;
        loop {
            let piece = segment::read(folder, number, from, u64::MAX).unwrap();
            from = piece.end;
            found.extend(piece.entries);
            if piece.stop.is_some() {
                break;
            }
        }
    }
    found
}

fn finals(folder: &std::path::Path) -> Vec<u64> {
    let sequence = |entry| match entry {
        Entry::Final { sequence, .. } => Some(sequence),
        Entry::Opened { .. } | Entry::Admitted(_) => None,
    };
    entries(folder).into_iter().filter_map(sequence).collect()
}

#[test]
fn without_room_for_a_new_segment_admissions_are_refused_and_all_finals_pass() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("segments");
    fs::create_dir(&folder).unwrap();
    let log = log(&folder);
    let hidden = root.path().join("hidden");
    fs::rename(&folder, &hidden).unwrap();

    let mut flights = Vec::new();
    let refused = loop {
        let admission = sample::admission();
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
    assert_eq!(finals(&hidden), (1..=count).collect::<Vec<_>>());

    fs::rename(&hidden, &folder).unwrap();
    log.refill().unwrap();
    assert!(log.writable());
    log.admit(&sample::admission()).unwrap();
}

#[test]
fn a_closed_log_admits_nothing_and_does_not_close_over_a_call() {
    let root = tempfile::tempdir().unwrap();
    let log = log(root.path());
    let admission = sample::admission();
    let ticket = log.admit(&admission).unwrap();
    assert!(!log.close());
    log.finish(&ticket, &mut final_of(admission)).unwrap();
    assert!(log.close());
    assert!(matches!(log.admit(&sample::admission()), Err(LogUnwritable::Closed)));
}

#[test]
fn an_admission_larger_than_any_real_one_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let mut admission = sample::admission();
    admission.function = "f".repeat(9000);
    assert!(matches!(log(root.path()).admit(&admission), Err(LogUnwritable::TooLarge(_))));
}

#[test]
fn a_final_behind_a_beat_gets_the_time_of_the_beat() {
    let root = tempfile::tempdir().unwrap();
    let log = log(root.path());
    let admission = sample::admission();
    let ticket = log.admit(&admission).unwrap();
    let clock = admission.started_at + TimeDelta::seconds(9);
    let beat = log.book().beat(clock);
    let mut record = final_of(admission);
    let sequence = log.finish(&ticket, &mut record).unwrap();
    assert!(sequence > beat.sequence);
    assert_eq!(record.completed_at, clock);
}

#[test]
fn only_what_was_synced_counts_as_durable() {
    let root = tempfile::tempdir().unwrap();
    let log = log(root.path());
    assert!(!log.is_dirty());
    let before = log.book().durable();
    log.admit(&sample::admission()).unwrap();
    assert!(log.is_dirty());
    assert_eq!(log.book().durable(), before);
    log.sync().unwrap();
    assert!(!log.is_dirty());
    assert!(log.book().durable() > before);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_reserve_always_holds_the_finals_of_all_calls_in_flight(
        steps in proptest::collection::vec((any::<bool>(), any::<usize>(), 1_usize..4000), 0..400),
        refilled in any::<bool>(),
    ) {
        let root = tempfile::tempdir().unwrap();
        let log = log(root.path());
        let mut flights: Vec<(Ticket, Record)> = Vec::new();
        let mut last = 0;
        for (admit, pick, size) in steps {
            if admit || flights.is_empty() {
                let mut admission = sample::admission();
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
        prop_assert_eq!(finals(root.path()), (1..=last).collect::<Vec<_>>());
    }
}

#[test]
fn the_facts_of_a_dropped_call_fit_what_is_reserved() {
    let counters = Counters { chunks: u64::MAX, bytes: u64::MAX, ..Counters::default() };
    let admission = sample::admission();
    let facts =
        protocol::record::settle::facts(admission.kind, admission.estimate, &counters, TimeDelta::microseconds(1));
    let mut bytes = Vec::new();
    frame::encode_admitted(&admission, &mut bytes).unwrap();
    let size = bytes.len() as u64;
    bytes.clear();
    frame::encode_final(u64::MAX, &Record { facts, ..final_of(admission) }, &mut bytes).unwrap();
    assert!(bytes.len() as u64 <= size + FINAL_EXTRA, "{} bytes", bytes.len());
}
