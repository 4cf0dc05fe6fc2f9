//! The bound in any ten seconds, what the floor gives, and who can take from whom.

use proptest::prelude::*;
use uuid::Uuid;

use super::*;

const FLOOR: u32 = 10;

fn chute(number: u128) -> ChuteId {
    ChuteId(Uuid::from_u128(number))
}

fn millis(number: u64) -> Duration {
    Duration::from_millis(number)
}

/// Calls of one chute at this moment.
fn calls(budget: &mut Budget, chute: ChuteId, count: u32, now: Duration) {
    (0..count).for_each(|_| budget.call(chute, now));
}

/// Retries that are given of many that are asked for.
fn given(budget: &mut Budget, chute: ChuteId, now: Duration) -> usize {
    (0..10_000).take_while(|_| budget.retry(chute, None, now).is_ok()).count()
}

#[test]
fn without_many_calls_a_chute_has_half_the_floor_and_all_of_them_the_floor() {
    let mut budget = Budget::new(FLOOR);
    assert_eq!(given(&mut budget, chute(1), millis(0)), 5);
    assert_eq!(budget.retry(chute(1), None, millis(0)), Err(Spent::Chute));
    assert_eq!(given(&mut budget, chute(2), millis(0)), 5);
    assert_eq!(budget.retry(chute(3), None, millis(0)), Err(Spent::Gateway));
    assert_eq!(given(&mut budget, chute(3), millis(10_250)), 5);
}

#[test]
fn a_floor_of_nothing_gives_nothing_that_calls_have_not_earned() {
    let mut budget = Budget::new(0);
    calls(&mut budget, chute(1), 19, millis(0));
    assert_eq!(given(&mut budget, chute(1), millis(0)), 1);
}

#[test]
fn the_calls_of_an_instance_that_dies_go_on_beside_the_budget() {
    let mut budget = Budget::new(0);
    calls(&mut budget, chute(1), 8, millis(0));
    let orphans = |budget: &mut Budget, of: u128, at: u64| {
        (0..100).take_while(|_| budget.retry(chute(of), Some(8), millis(at)).is_ok()).count()
    };
    assert_eq!(orphans(&mut budget, 1, 0), 8);
    assert_eq!(budget.retry(chute(1), Some(8), millis(9_700)), Err(Spent::Chute));
    assert_eq!((orphans(&mut budget, 2, 0), orphans(&mut budget, 1, 10_250)), (8, 8));
    calls(&mut budget, chute(1), 10, millis(10_250));
    assert_eq!(given(&mut budget, chute(1), millis(10_250)), 1, "orphans take nothing of what calls earn");
}

#[test]
fn ten_calls_earn_one_retry_for_ten_seconds() {
    let mut budget = Budget::new(FLOOR);
    calls(&mut budget, chute(1), 1000, millis(0));
    assert_eq!(given(&mut budget, chute(1), millis(9_700)), 100);
    assert_eq!(given(&mut budget, chute(1), millis(9_700)), 0);
    let mut budget = Budget::new(FLOOR);
    calls(&mut budget, chute(1), 1000, millis(0));
    assert_eq!(given(&mut budget, chute(1), millis(10_000)), 5);
}

#[test]
fn one_chutes_trouble_takes_no_more_than_the_floor_from_another() {
    let mut budget = Budget::new(FLOOR);
    calls(&mut budget, chute(1), 1000, millis(0));
    for trouble in 2..100 {
        budget.call(chute(trouble), millis(0));
        given(&mut budget, chute(trouble), millis(0));
    }
    assert!(given(&mut budget, chute(1), millis(0)) >= 90);
}

#[test]
fn memory_holds_only_chutes_with_recent_calls() {
    let mut budget = Budget::new(FLOOR);
    budget.call(chute(1), millis(0));
    budget.call(chute(2), millis(5_000));
    budget.keep_recent(millis(11_000));
    assert_eq!(budget.chutes.keys().copied().collect::<Vec<_>>(), [chute(2)]);
}

#[test]
fn a_clock_that_stands_still_or_goes_back_does_no_harm() {
    let mut budget = Budget::new(FLOOR);
    calls(&mut budget, chute(1), 100, millis(60_000));
    assert_eq!(given(&mut budget, chute(1), millis(1)), 10);
}

/// In any ten seconds of a steady load attempts over calls is at most 1.1, however much fails.
#[test]
fn in_any_ten_seconds_of_a_steady_load_a_tenth_is_retried_at_most() {
    let mut budget = Budget::new(FLOOR);
    let mut retries = Vec::new();
    for number in 0..6000 {
        let now = millis(number * 10);
        budget.call(chute(1), now);
        while budget.retry(chute(1), None, now).is_ok() {
            retries.push(now);
        }
    }
    for start in (0..50_000).step_by(50).map(millis) {
        let within = retries.iter().filter(|at| (start..start + SPAN).contains(*at)).count();
        assert!(within <= 100, "{within} retries and 1000 calls in the ten seconds from {start:?}");
    }
    assert!(retries.len() >= 550, "{} of 600 that the calls earned", retries.len());
}

/// One call or wish for a retry: milliseconds since the one before, chute, whether it is a call, how many.
type Step = (u64, u128, bool, u32);

fn within(times: &[(Duration, ChuteId)], end: Duration, of: Option<ChuteId>) -> u32 {
    let recent = times.iter().filter(|(at, _)| *at <= end && *at + SPAN > end);
    u32::try_from(recent.filter(|(_, chute)| of.is_none_or(|of| *chute == of)).count()).unwrap()
}

/// The ten seconds that end now, if a retry of this chute was given now.
fn checked(
    calls: &[(Duration, ChuteId)],
    retries: &[(Duration, ChuteId)],
    now: Duration,
    chute: ChuteId,
    floor: u32,
) -> Result<(), TestCaseError> {
    if retries.last() != Some(&(now, chute)) {
        return Ok(());
    }
    let earned = |of| within(calls, now, of) / CALLS_PER_RETRY;
    prop_assert!(within(retries, now, None) <= floor.max(earned(None)));
    prop_assert!(within(retries, now, Some(chute)) <= floor.div_ceil(2).max(earned(Some(chute))));
    Ok(())
}

proptest! {
    /// Whatever comes when, the ten seconds that end with any retry keep every bound.
    #[test]
    fn the_bound_holds_in_the_ten_seconds_before_any_retry(
        steps in prop::collection::vec((0_u64..1500, 1_u128..4, any::<bool>(), 1_u32..60), 0..150),
        floor in 0_u32..12,
    ) {
        let mut budget = Budget::new(floor);
        let (mut calls, mut retries, mut now) = (Vec::new(), Vec::new(), Duration::ZERO);
        for (wait, number, is_call, count) in steps as Vec<Step> {
            now += millis(wait);
            let chute = chute(number);
            for _ in 0..count {
                if is_call {
                    budget.call(chute, now);
                    calls.push((now, chute));
                } else if budget.retry(chute, None, now).is_ok() {
                    retries.push((now, chute));
                }
            }
            if !is_call {
                checked(&calls, &retries, now, chute, floor)?;
            }
        }
    }
}
