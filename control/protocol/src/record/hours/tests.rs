//! Tests of `hours`: a table, and the rule that waiting longer never opens an hour again.

use proptest::prelude::*;

use super::*;

fn at(minutes: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_767_225_600, 0).unwrap() + TimeDelta::minutes(minutes)
}

#[test]
fn an_hour_waits_for_each_live_writer() {
    let live = |minutes| Writer { clock: at(minutes), closed: false };
    let closed = |minutes| Writer { clock: at(minutes), closed: true };
    for (now, writers, closes) in [
        (59, vec![], false),
        (60, vec![], true),
        (60, vec![live(60)], true),
        (61, vec![live(60), live(59)], false),
        (61, vec![live(60), closed(10)], true),
        (79, vec![live(1)], false),
        (80, vec![live(1)], true),
        (61, vec![live(-20)], false),
        (61, vec![live(-21)], true),
    ] {
        assert_eq!(may_close(at(60), at(now), writers.clone()), closes, "{now} {writers:?}");
    }
}

#[test]
fn an_hour_ends_at_the_next_full_one() {
    for (minute, end) in [(0, 60), (59, 60), (60, 120), (-1, 0)] {
        assert_eq!(end_of(at(minute)), at(end), "minute {minute}");
    }
}

#[test]
fn a_row_goes_into_the_file_of_its_own_hour_or_of_the_oldest_open_one() {
    let day = 24 * 60;
    for (completed, oldest_open, now, end) in [
        (30, 60, 40, 60),
        (30, 0, 40, 60),
        (30, 180, 200, 180),
        (90, 60, 100, 120),
        (day + 29, 60, 30, day + 60),
        (9 * day, 60, 30, day + 60),
    ] {
        let found = end_for_row(at(completed), at(oldest_open), at(now));
        assert_eq!(found, at(end), "ended at {completed}, {oldest_open} open, now {now}");
    }
}

proptest! {
    #[test]
    fn an_hour_that_may_close_stays_so_as_clocks_advance(
        now in 0_i64..200,
        later in 0_i64..100,
        writers in proptest::collection::vec((0_i64..120, any::<bool>(), 0_i64..100), 0..5),
    ) {
        let then = writers.iter().map(|(clock, closed, _)| Writer { clock: at(*clock), closed: *closed });
        let after = writers.iter().map(|(clock, closed, more)| Writer { clock: at(clock + more), closed: *closed });
        if may_close(at(60), at(now), then) {
            prop_assert!(may_close(at(60), at(now + later), after));
        }
    }
}
