//! Tests of `rate`: what a caller is told about the limit, and when it is forgotten.

use super::*;
use crate::lease::{Redis, Terms};

/// Three calls a minute, of a gateway that is alone.
fn at(millis: u64) -> Now {
    let recheck = Duration::from_millis(250);
    let terms = Terms { limit: 3, linger: Duration::from_secs(61), recheck, keen: recheck, ready: 1, shared: true };
    Now { terms, time: Duration::from_millis(millis), redis: Redis::Away, gateways: 1 }
}

fn after_calls(seconds: &[u64]) -> Rate {
    let mut rate = Rate::default();
    seconds.iter().for_each(|second| rate.take(at(second * 1_000)));
    rate
}

/// What another gateway holds comes free in so many milliseconds.
fn hears_of_others(rate: &mut Rate, next: u64, now: Now) {
    let asked = rate.ask(0, now);
    rate.answer(&asked, &Answer { held: asked.must, left: 0, next: Some(next) }, now);
}

#[test]
fn a_call_counts_for_a_minute() {
    let mut rate = after_calls(&[0, 0, 5]);
    assert_eq!((rate.used(), rate.remaining(at(5_000)), rate.test(at(5_000))), (3, 0, Verdict::Full));
    assert_eq!((rate.test(at(61_000)), rate.used(), rate.remaining(at(61_000))), (Verdict::Fits, 1, 2));
}

#[test]
fn a_caller_is_told_the_whole_seconds_until_the_next_call_comes_free() {
    assert_eq!(Rate::default().reset(at(0)), 0);
    assert_eq!(after_calls(&[2]).reset(at(2_000)), 61);
    assert_eq!(after_calls(&[2]).reset(at(2_001)), 61);
    assert_eq!(after_calls(&[2]).reset(at(3_000)), 60);
    assert_eq!(after_calls(&[0, 5, 7, 9]).reset(at(9_000)), 57, "two have to leave before one more fits");
}

#[test]
fn what_comes_free_elsewhere_counts_a_little_later_and_only_where_the_limit_is_not_reached_here() {
    let mut none = Rate::default();
    hears_of_others(&mut none, 1_500, at(0));
    assert_eq!(none.reset(at(0)), 2);
    assert_eq!(none.reset(at(1_499)), 1);
    assert_eq!(none.reset(at(1_500)), 0, "it is free by now");
    let mut some = after_calls(&[0]);
    hears_of_others(&mut some, 1_500, at(0));
    assert_eq!(some.reset(at(0)), 2);
    let mut all = after_calls(&[0, 0, 0]);
    hears_of_others(&mut all, 1_500, at(0));
    assert_eq!(all.reset(at(0)), 61);
}

#[test]
fn a_question_says_when_the_oldest_call_comes_free() {
    let asked = after_calls(&[0, 5]).ask(0, at(6_000));
    assert_eq!((asked.must, asked.next, asked.linger), (2, Some(55_000), 61_000));
    assert_eq!(Rate::default().ask(0, at(0)).next, None);
}

#[test]
fn a_slot_whose_minute_is_over_is_kept_for_the_next_call_while_redis_is_there() {
    let there = |millis| Now { redis: Redis::There, ..at(millis) };
    for (now, free) in [(there(61_000), 1), (at(61_000), 0), (there(60_999), 0)] {
        let mut rate = after_calls(&[0]);
        rate.test(now);
        assert_eq!(rate.holding().free(), free, "at {:?}", now.time);
    }
}

#[test]
fn it_is_idle_once_the_minute_is_over_and_nothing_is_held() {
    let mut rate = after_calls(&[0]);
    assert!(!rate.is_idle(at(60_999)));
    assert!(rate.is_idle(at(61_000)));
    let mut held = Rate::default();
    let asked = held.ask(1, at(0));
    held.answer(&asked, &Answer { held: 1, left: 2, next: None }, at(0));
    assert!(!held.is_idle(at(0)));
    held.lapse();
    assert_eq!(held.holding().free(), 0);
}

#[test]
fn what_is_kept_ready_is_given_up_when_the_gateway_stops() {
    let mut rate = Rate::default();
    let asked = rate.ask(2, at(0));
    rate.answer(&asked, &Answer { held: 2, left: 1, next: None }, at(0));
    assert_eq!(rate.holding().free(), 2);
    rate.close();
    assert_eq!(rate.holding().free(), 0);
}

#[test]
fn a_question_is_due_for_a_call_that_redis_does_not_know_and_again_if_it_was_not_answered() {
    let there = Now { redis: Redis::There, ..at(0) };
    let mut rate = after_calls(&[0]);
    assert!(rate.is_due(there));
    assert!(!rate.is_due(there));
    rate.unanswered();
    assert!(rate.is_due(there));
    let asked = rate.ask(0, there);
    rate.answer(&asked, &Answer { held: 1, left: 2, next: None }, there);
    let later = Now { redis: Redis::There, ..at(61_000) };
    assert!(rate.is_due(later), "its minute is over, and nobody calls any more");
}
