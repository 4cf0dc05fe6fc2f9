//! Tests of `recovery`: after it, each admitted attempt has exactly one final and the sequence has no gap.

use std::collections::BTreeSet;

use chrono::TimeDelta;
use proptest::prelude::*;

use super::*;
use crate::record::sample::{admission, record};
use crate::record::settle::Counters;
use crate::usage::Facts;

fn slot(admission: &Admission, after_millis: i64, chunks: u64) -> Slot {
    Slot {
        invocation: admission.invocation,
        updated_at: admission.started_at + TimeDelta::milliseconds(after_millis),
        counters: Counters {
            chunks,
            bytes: chunks * 5,
            first_chunk_micros: Some(100_000),
            delivered: true,
            ..Counters::default()
        },
    }
}

#[test]
fn a_cut_stream_is_settled_by_its_slot() {
    let admission = admission(0);
    let found = lost_record(admission.clone(), Some(slot(&admission, 500, 3)));
    assert_eq!(found.outcome, Outcome::Lost);
    assert_eq!(found.completed_at, admission.started_at + TimeDelta::milliseconds(500));
    assert_eq!((found.error, found.delivered), (None, true));
    assert_eq!(found.facts, Facts { it: 11, ot: 3, tokens: 3, ttft: Some(0.1), tt: 0.5 });
}

#[test]
fn an_attempt_of_which_nothing_arrived_has_failed() {
    let admission = admission(0);
    let found = lost_record(admission.clone(), None);
    assert_eq!((found.error.as_deref(), found.delivered), (Some("LOST"), false));
    assert_eq!(found.completed_at, admission.started_at);
    assert!(found.facts.tt.abs() < f64::EPSILON);
}

#[test]
fn a_slot_left_over_from_an_earlier_call_is_not_taken() {
    let mut recovery = Recovery::default();
    recovery.read(Entry::Admitted(Box::new(admission(0))));
    let lost = recovery.lost([slot(&admission(1), 500, 3)]);
    assert!(!lost[0].1.delivered);
}

#[test]
fn the_sequences_of_a_second_life_are_not_those_of_the_first() {
    let mut recovery = Recovery::default();
    recovery.read(Entry::Skipped { through: u64::from(u32::MAX) });
    recovery.read(Entry::Opened { after: (1 << 32) + 7 });
    recovery.read(Entry::Admitted(Box::new(admission(0))));
    assert_eq!(recovery.lost([])[0].0, 2 << 32);
}

#[test]
fn sequences_go_on_after_segments_that_were_deleted() {
    let mut recovery = Recovery::default();
    recovery.read(Entry::Opened { after: 90 });
    recovery.read(Entry::Admitted(Box::new(admission(0))));
    assert_eq!(recovery.lost([])[0].0, 1 << 32);
}

proptest! {
    #[test]
    fn each_attempt_has_one_final_and_the_sequence_no_gap_but_the_one_between_two_lives(
        ended in proptest::collection::vec(any::<bool>(), 0..40),
        kept in 0_usize..80,
    ) {
        let attempts: Vec<_> = (0_i64..).map(admission).take(ended.len()).collect();
        let mut log: Vec<Entry> = attempts.iter().cloned().map(|one| Entry::Admitted(Box::new(one))).collect();
        let finals = attempts.iter().zip(&ended).filter(|(_, ended)| **ended).map(|(one, _)| record(one.clone()));
        log.extend((1..).zip(finals).map(|(sequence, record)| Entry::Final { sequence, record: Box::new(record) }));
        log.truncate(kept);

        let mut recovery = Recovery::default();
        let mut sequences = Vec::new();
        let mut finished = Vec::new();
        let mut admitted = BTreeSet::new();
        for entry in log {
            if let Entry::Admitted(admission) = &entry {
                admitted.insert(admission.invocation);
            }
            if let Entry::Final { sequence, record } = &entry {
                sequences.push(*sequence);
                finished.push(record.admission.invocation);
            }
            recovery.read(entry);
        }
        let shipped = u64::try_from(sequences.len()).unwrap();
        for (sequence, record) in recovery.lost([]) {
            prop_assert!(sequence > u64::from(u32::MAX));
            sequences.push(sequence - u64::from(u32::MAX) + shipped);
            finished.push(record.admission.invocation);
        }
        let count = u64::try_from(sequences.len()).unwrap();
        prop_assert_eq!(sequences, (1..=count).collect::<Vec<_>>());
        prop_assert_eq!(finished.len(), admitted.len());
        prop_assert_eq!(finished.into_iter().collect::<BTreeSet<_>>(), admitted);
    }
}
