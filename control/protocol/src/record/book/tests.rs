//! Tests of `book`: beats speak the truth, and nothing that may be needed again is deleted.

use proptest::prelude::*;

use super::*;

fn at(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_767_225_600 + second, 0).unwrap()
}

#[test]
fn a_final_after_a_beat_ends_at_its_clock_or_later() {
    let mut book = Book::default();
    book.opened(1, 0);
    let segment = book.admitted(at(0));
    assert_eq!(book.beat(at(10)), Beat { clock: at(10), sequence: 0, closed: false });
    assert_eq!(book.ends_at(at(9)), at(10));
    assert_eq!(book.ends_at(at(8)), at(8), "the clock was set: nobody pays for that");
    assert_eq!(book.ends_at(at(11)), at(11));
    book.ended(segment, 1, at(11));
    assert_eq!(book.beat(at(8)), Beat { clock: at(10), sequence: 1, closed: false }, "a clock set back");
}

#[test]
fn a_log_closes_only_when_nothing_is_in_flight() {
    let mut book = Book::default();
    book.opened(1, 0);
    let segment = book.admitted(at(0));
    assert!(!book.close());
    book.ended(segment, 1, at(1));
    assert!(book.close());
    assert!(book.beat(at(2)).closed);
}

#[test]
fn a_segment_goes_when_it_is_confirmed_ended_and_old() {
    let mut book = Book::default();
    book.opened(1, 0);
    let long = book.admitted(at(0));
    let short = book.admitted(at(1));
    book.ended(short, 1, at(2));
    assert_eq!(book.deletable(1, at(100)), None, "the segment being written");
    book.opened(2, 1);
    assert_eq!(book.deletable(1, at(100)), None, "an attempt in flight");
    book.ended(long, 2, at(3));
    assert_eq!(book.deletable(0, at(100)), None, "not confirmed");
    assert_eq!(book.deletable(2, at(2)), None, "not old");
    assert_eq!(book.deletable(1, at(100)), None, "the final of an attempt admitted there is not confirmed");
    assert_eq!(book.deletable(2, at(100)), Some(1));
    book.forget(1);
    assert_eq!(book.deletable(2, at(100)), None, "the segment being written");
    assert!(book.close());
    assert_eq!(book.deletable(2, at(100)), Some(2));
    assert!(!book.is_empty());
    book.forget(2);
    assert!(book.is_empty());
    assert_eq!((book.first(), book.last()), (3, 2));
}

#[test]
fn a_sequence_is_found_in_its_segment() {
    let mut book = Book::default();
    book.opened(4, 10);
    book.noted(12, at(0));
    book.opened(5, 12);
    book.opened(9, 12);
    book.noted(13, at(0));
    let segment = |sequence| book.holding(sequence).map(|position| position.segment);
    assert_eq!(
        [segment(10), segment(11), segment(12), segment(13), segment(14)],
        [None, Some(4), Some(4), Some(9), None]
    );
    assert_eq!(book.first(), 11);
    assert_eq!(book.following(5).map(|position| position.segment), Some(9));
    assert_eq!(book.following(9), None);
}

#[test]
fn only_what_is_durable_is_read() {
    let mut book = Book::default();
    book.synced(Position { segment: 2, offset: 100 }, 7);
    book.synced(Position { segment: 2, offset: 50 }, 7);
    let reach = |limit, complete, last| Reach { limit, complete, last };
    let found = [book.reach(1), book.reach(2), book.reach(3)];
    assert_eq!(found, [reach(u64::MAX, true, None), reach(100, false, Some(7)), reach(0, false, None)]);
}

#[test]
fn what_was_written_again_is_read_only_there() {
    let mut book = Book::default();
    for number in 1..=3 {
        book.opened(number, 0);
    }
    book.synced(Position { segment: 2, offset: 100 }, 7);
    book.distrust();
    book.opened(4, 7);
    assert_eq!(book.reach(2).limit, 100);
    book.synced(Position { segment: 4, offset: 50 }, 9);
    let limits = [1, 2, 3, 4].map(|number| book.reach(number).limit);
    assert_eq!(limits, [u64::MAX, 100, 0, 50]);
    assert!(book.reach(2).complete && book.reach(3).complete);
}

#[test]
fn sequences_that_were_skipped_are_not_unconfirmed() {
    let mut book = Book::default();
    book.opened(1, 0);
    book.noted(10, at(0));
    book.skip(10);
    assert!(book.skipped.is_empty(), "nothing lies between");
    book.skip(99);
    book.noted(101, at(0));
    assert_eq!([book.unconfirmed(0), book.unconfirmed(10), book.unconfirmed(50), book.unconfirmed(99)], [12, 2, 2, 2]);
    assert_eq!([book.unconfirmed(100), book.unconfirmed(101), book.unconfirmed(200)], [1, 0, 0]);
}

#[test]
fn the_oldest_final_above_the_mark_has_its_time_and_an_admission_has_none() {
    let mut book = Book::default();
    book.opened(1, 0);
    let (first, second) = (book.admitted(at(0)), book.admitted(at(1)));
    assert_eq!(book.oldest_above(0), None);
    book.ended(second, 1, at(5));
    book.skip(99);
    book.ended(first, 100, at(8));
    assert_eq!([book.oldest_above(0), book.oldest_above(1), book.oldest_above(100)], [Some(at(5)), Some(at(8)), None]);
}

proptest! {
    #[test]
    fn nothing_beyond_the_mark_is_ever_deleted(
        steps in proptest::collection::vec((0_u8..4, 0_usize..8), 0..80),
        mark in 0_u64..20,
    ) {
        let mut book = Book::default();
        book.opened(1, 0);
        let mut number = 1;
        let mut flights: Vec<u64> = Vec::new();
        let mut finals: Vec<(u64, u64)> = Vec::new();
        for (step, pick) in steps {
            match step {
                0 => flights.push(book.admitted(at(0))),
                1 if !flights.is_empty() => {
                    let admitted_in = flights.remove(pick % flights.len());
                    let sequence = book.last() + 1;
                    book.ended(admitted_in, sequence, at(0));
                    finals.push((sequence, number));
                }
                2 => {
                    number += 1;
                    book.opened(number, book.last());
                }
                _ => {
                    if let Some(gone) = book.deletable(mark, at(0) + TimeDelta::seconds(1)) {
                        prop_assert!(gone < number);
                        prop_assert!(!flights.contains(&gone));
                        prop_assert!(finals.iter().all(|(sequence, segment)| *segment != gone || *sequence <= mark));
                        book.forget(gone);
                    }
                }
            }
            for (sequence, segment) in finals.iter().filter(|(sequence, _)| *sequence > mark) {
                prop_assert_eq!(book.holding(*sequence).map(|position| position.segment), Some(*segment));
            }
        }
    }
}
