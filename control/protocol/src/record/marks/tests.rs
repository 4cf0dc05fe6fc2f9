//! Tests of `marks`: the mark is the highest contiguous sequence, whatever order and repetitions.

use std::collections::BTreeSet;

use chrono::DateTime;
use proptest::prelude::*;

use super::*;

fn single(sequences: &[u64]) -> impl Iterator<Item = RangeInclusive<u64>> {
    sequences.iter().map(|sequence| *sequence..=*sequence)
}

#[test]
fn a_range_that_is_gone_counts_as_stored() {
    assert_eq!(advance(4, [8..=9, 5..=7]), 9);
    assert_eq!(advance(4, [2..=6]), 6);
    assert_eq!(advance(4, [6..=9]), 4);
    assert_eq!(advance(4, [5..=u64::MAX, u64::MAX..=u64::MAX]), u64::MAX);
}

#[test]
fn a_gap_holds_the_mark() {
    for (mark, sequences, reached) in [
        (0, vec![], 0),
        (0, vec![1, 2, 3], 3),
        (0, vec![3, 1, 2, 2, 1], 3),
        (0, vec![2, 3], 0),
        (4, vec![1, 2, 3], 4),
        (4, vec![3, 5, 7], 5),
        (u64::MAX, vec![u64::MAX, 0], u64::MAX),
        (u64::MAX - 1, vec![u64::MAX, u64::MAX], u64::MAX),
    ] {
        assert_eq!(advance(mark, single(&sequences)), reached, "{mark} {sequences:?}");
    }
}

#[test]
fn a_beat_holds_once_its_sequence_is_stored() {
    let beat = Beat { clock: DateTime::UNIX_EPOCH, sequence: 5, closed: false };
    assert!(!confirms(4, &beat));
    assert!(confirms(5, &beat));
}

proptest! {
    #[test]
    fn the_mark_is_the_highest_contiguous_sequence(
        mark in 0_u64..20,
        batches in proptest::collection::vec(proptest::collection::vec(0_u64..60, 0..30), 0..10),
    ) {
        let mut reached = mark;
        for batch in batches {
            let stored: BTreeSet<u64> = (1..=reached).chain(batch.iter().copied().filter(|one| *one > 0)).collect();
            let contiguous = (1..).find(|one| !stored.contains(one)).unwrap() - 1;
            reached = advance(reached, single(&batch));
            prop_assert_eq!(reached, contiguous);
        }
    }
}
