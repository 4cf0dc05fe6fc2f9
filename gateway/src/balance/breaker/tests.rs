//! When a breaker opens, for how long, and what closes it.

use proptest::prelude::*;

use super::*;

const RULE: Rule = Rule { open: Duration::from_secs(2), longest: Duration::from_secs(60) };

fn at(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// Fails as often as it takes to open at that time, without jitter.
fn opened_at(seconds: f64) -> Breaker {
    let mut breaker = Breaker::default();
    assert!(!breaker.failed(None, RULE, at(seconds), 0.0));
    assert!(!breaker.failed(None, RULE, at(seconds), 0.0));
    assert!(breaker.failed(None, RULE, at(seconds), 0.0));
    breaker
}

#[test]
fn one_failure_makes_others_preferred_for_a_second() {
    let mut breaker = Breaker::default();
    assert_eq!(breaker.rank(true, at(0.0)), Some(Rank::Good));
    assert!(!breaker.failed(None, RULE, at(1.0), 0.5));
    for (now, rank) in [(1.0, Rank::Averted), (1.99, Rank::Averted), (2.0, Rank::Good)] {
        assert_eq!(breaker.rank(true, at(now)), Some(rank), "{now}");
        assert_eq!(breaker.rank(false, at(now)), Some(rank), "{now}");
    }
}

#[test]
fn three_failures_in_a_row_open_it_and_a_success_between_them_does_not_count_against_it() {
    let mut breaker = Breaker::default();
    for _ in 0..2 {
        assert!(!breaker.failed(None, RULE, at(0.0), 0.0));
        assert!(!breaker.failed(None, RULE, at(0.0), 0.0));
        breaker.works(None, at(0.0));
    }
    assert_eq!(opened_at(0.0).standing(at(1.9)), Standing::Open);
}

#[test]
fn one_that_is_due_for_its_trial_does_not_count_as_open_although_no_call_comes() {
    let breaker = opened_at(0.0);
    for (now, standing) in [(1.99, Standing::Open), (2.0, Standing::HalfOpen), (9_999.0, Standing::HalfOpen)] {
        assert_eq!(breaker.standing(at(now)), standing, "{now}");
    }
}

#[test]
fn half_the_calls_of_the_last_seconds_failing_open_it_although_never_three_in_a_row() {
    let mut breaker = Breaker::default();
    for second in 0..3 {
        breaker.works(None, at(f64::from(second)));
        assert!(!breaker.failed(None, RULE, at(f64::from(second)), 0.0));
    }
    breaker.works(None, at(3.0));
    assert!(breaker.failed(None, RULE, at(3.0), 0.0), "four of eight");
}

#[test]
fn failures_that_are_fewer_than_half_or_long_ago_do_not_open_it() {
    let mut breaker = Breaker::default();
    for second in 0..300 {
        let now = at(f64::from(second) / 10.0);
        breaker.works(None, now);
        breaker.works(None, now);
        assert!(!breaker.failed(None, RULE, now, 0.0), "a third fails");
    }
    let mut breaker = Breaker::default();
    for second in 0..100 {
        let now = at(f64::from(second) * 5.0);
        breaker.works(None, now);
        assert!(!breaker.failed(None, RULE, now, 0.0), "half fail, but too few in ten seconds to say so");
    }
}

#[test]
fn an_open_one_is_the_last_resort_until_its_time_is_over_then_one_call_tries_it() {
    let mut breaker = opened_at(0.0);
    assert_eq!(breaker.rank(true, at(1.9)), Some(Rank::LastResort));
    assert_eq!(breaker.rank(true, at(2.0)), Some(Rank::Good));
    assert_eq!(breaker.rank(false, at(2.0)), Some(Rank::LastResort), "no trial for a call that has failed already");
    let trial = breaker.begin(at(2.0));
    assert!(trial.is_some());
    assert_eq!((breaker.rank(true, at(2.0)), breaker.standing(at(2.0))), (None, Standing::HalfOpen));
    breaker.answered(trial, at(2.5));
    assert_eq!(breaker.rank(true, at(2.5)), Some(Rank::Good));
    assert_eq!(breaker.begin(at(2.5)), None);
}

#[test]
fn each_failed_trial_doubles_the_time_open_up_to_the_longest() {
    let mut breaker = opened_at(0.0);
    let mut now = at(2.0);
    for expected in [4, 8, 16, 32, 60, 60] {
        let trial = breaker.begin(now);
        assert!(breaker.failed(trial, RULE, now, 0.0));
        assert_eq!(breaker.remaining(now), Duration::from_secs(expected));
        now += Duration::from_secs(expected);
    }
}

#[test]
fn earlier_openings_are_forgotten_once_it_stayed_closed_for_long() {
    for (closed_for, expected) in [(59.0, 4), (60.0, 2)] {
        let mut breaker = opened_at(0.0);
        let trial = breaker.begin(at(2.0));
        breaker.answered(trial, at(2.0));
        let now = at(2.0 + closed_for);
        while !breaker.failed(None, RULE, now, 0.0) {}
        assert_eq!(breaker.remaining(now), Duration::from_secs(expected), "{closed_for}");
    }
}

#[test]
fn a_last_resort_that_fails_before_its_time_changes_nothing_and_one_that_answers_closes() {
    let mut breaker = opened_at(0.0);
    let early = breaker.begin(at(0.5));
    assert_eq!(breaker.rank(true, at(0.5)), None, "one at a time");
    assert!(!breaker.failed(early, RULE, at(0.5), 0.0));
    assert_eq!(breaker.remaining(at(0.5)), at(1.5));
    let early = breaker.begin(at(0.5));
    breaker.answered(early, at(1.0));
    assert_eq!(breaker.standing(at(1.0)), Standing::Closed);
}

#[test]
fn a_trial_that_showed_nothing_leaves_the_next_call_to_be_the_trial() {
    let mut breaker = opened_at(0.0);
    let trial = breaker.begin(at(2.0));
    breaker.unknown(trial);
    assert_eq!(breaker.rank(true, at(2.0)), Some(Rank::Good));
    assert_ne!(breaker.begin(at(2.0)), trial);
}

#[test]
fn only_its_trial_ends_a_half_open_state() {
    let mut breaker = opened_at(0.0);
    let trial = breaker.begin(at(2.0));
    for other in [None, Some(Trial(0)), Some(Trial(2))] {
        breaker.unknown(other);
        breaker.works(other, at(3.0));
        breaker.full(other, at(3.0));
        assert!(!breaker.failed(other, RULE, at(3.0), 0.0));
        assert_eq!(breaker.standing(at(9.0)), Standing::HalfOpen);
    }
    breaker.works(trial, at(9.0));
    assert_eq!(breaker.standing(at(9.0)), Standing::Closed);
}

#[test]
fn a_trial_that_takes_long_lets_another_call_in_and_each_of_them_tells() {
    for answers in [0, 1] {
        let mut breaker = opened_at(0.0);
        let first = breaker.begin(at(2.0));
        assert_eq!(breaker.rank(true, at(3.9)), None);
        assert_eq!(breaker.rank(true, at(4.0)), Some(Rank::LastResort));
        let trials = [first, breaker.begin(at(4.0))];
        assert_eq!(breaker.rank(true, at(5.9)), None);
        let mut failing = breaker;
        breaker.answered(trials[answers], at(6.0));
        assert_eq!(breaker.standing(at(6.0)), Standing::Closed);
        assert!(failing.failed(trials[answers], RULE, at(6.0), 0.0));
        assert_eq!(failing.standing(at(6.0)), Standing::Open);
    }
}

#[test]
fn a_full_instance_is_passed_over_for_a_moment_and_that_is_no_failure() {
    let mut breaker = Breaker::default();
    for _ in 0..100 {
        breaker.full(None, at(1.0));
    }
    assert_eq!(breaker.rank(true, at(1.1)), Some(Rank::Averted));
    assert_eq!(breaker.rank(true, at(1.2)), Some(Rank::Good));
}

proptest! {
    /// Whatever happens, it is open for a bounded time and never without a way back.
    #[test]
    fn it_always_comes_back(steps in prop::collection::vec((0_u8..6, 0.0_f64..20.0, 0.0_f64..1.0), 0..200)) {
        let (mut breaker, mut now, mut trial) = (Breaker::default(), Duration::ZERO, None);
        for (act, wait, jitter) in steps {
            now += at(wait);
            match act {
                0 => trial = breaker.begin(now).or(trial),
                1 => breaker.works(trial, now),
                2 => breaker.full(trial, now),
                3 => breaker.unknown(trial),
                _ => { breaker.failed(trial, RULE, now, jitter); }
            }
            prop_assert!(breaker.remaining(now) <= RULE.longest);
            let waiting = breaker.rank(true, now + RULE.longest);
            let on_trial = matches!(breaker.state, State::HalfOpen { .. });
            prop_assert_eq!(waiting, Some(if on_trial { Rank::LastResort } else { Rank::Good }));
            prop_assert!(breaker.standing(now + RULE.longest) != Standing::Open, "it counts as open for ever");
        }
        breaker.works(trial, now);
        breaker.unknown(trial);
        prop_assert!(breaker.rank(true, now).is_some(), "the last trial is always the one we hold");
    }

    /// The random part only shortens, by a quarter at most.
    #[test]
    fn jitter_is_bounded(jitter in -1.0_f64..2.0) {
        let mut breaker = Breaker::default();
        while !breaker.failed(None, RULE, Duration::ZERO, jitter) {}
        let open = breaker.remaining(Duration::ZERO);
        prop_assert!(open <= RULE.open && open >= RULE.open.mul_f64(0.75));
    }
}
