//! Tests of `holding`: what a gateway decides alone, when it asks, and what it asks for.

use super::*;

const RECHECK: u64 = 250;

/// A limit of 100, shared by four gateways.
fn at(millis: u64) -> Now {
    let recheck = Duration::from_millis(RECHECK);
    let terms = Terms { limit: 100, linger: Duration::from_secs(61), recheck, keen: recheck, ready: 1, shared: true };
    Now { terms, time: Duration::from_millis(millis), redis: Redis::There, gateways: 4 }
}

fn away() -> Now {
    Now { redis: Redis::Away, ..at(0) }
}

fn alone(now: Now) -> Now {
    Now { gateways: 1, ..now }
}

/// A holding with so many slots ready, all of which Redis knows.
fn with_ready(free: u64) -> Holding {
    Holding { free, claimed: free, ..Holding::default() }
}

/// The same, after an answer at 0 that so many are left.
fn with_left(free: u64, left: i64) -> Holding {
    let mut holding = with_ready(free);
    let asked = holding.clone().ask(0, 0, 0, None, at(0));
    holding.answer(&Ask { must: free, ..asked }, &Answer { held: free, left, next: None }, at(0));
    holding
}

/// The same, after eight calls in the present second took slots that were ready.
fn busy(free: u64, left: i64) -> Holding {
    let mut holding = with_left(free + 8, left);
    (0..8).for_each(|_| holding.take(at(0)));
    holding
}

#[test]
fn a_call_fits_below_the_limit_where_a_slot_is_ready() {
    for (free, used, verdict) in
        [(1, 99, Verdict::Fits), (1, 100, Verdict::Full), (9, 101, Verdict::Full), (0, 0, Verdict::Ask)]
    {
        assert_eq!(with_ready(free).test(used, at(0)), verdict, "{free} ready, {used} used");
    }
}

#[test]
fn that_none_is_left_is_believed_for_a_while() {
    for (left, millis, verdict) in [
        (0, RECHECK - 1, Verdict::Full),
        (-3, RECHECK - 1, Verdict::Full),
        (0, RECHECK, Verdict::Ask),
        (1, 0, Verdict::Ask),
    ] {
        assert_eq!(with_left(0, left).test(5, at(millis)), verdict, "{left} left, {millis} ms later");
    }
}

#[test]
fn without_redis_a_call_fits_in_what_is_ready_and_in_the_share_where_there_is_one() {
    let strict = Now { terms: Terms { shared: false, ..away().terms }, ..away() };
    for (free, used, now, verdict) in [
        (0, 24, away(), Verdict::Fits),
        (0, 25, away(), Verdict::Full),
        (1, 25, away(), Verdict::Fits),
        (1, 100, away(), Verdict::Full),
        (0, 0, strict, Verdict::Unknown),
        (1, 0, strict, Verdict::Fits),
    ] {
        assert_eq!(with_ready(free).test(used, now), verdict, "{free} ready, {used} used");
    }
}

#[test]
fn a_slot_is_taken_once_and_used_again_only_while_redis_is_there() {
    let mut holding = with_ready(2);
    holding.take(at(0));
    assert_eq!(holding.free(), 1);
    holding.give_back(3, Redis::There);
    assert_eq!(holding.free(), 4);
    holding.give_back(3, Redis::Away);
    assert_eq!(holding.free(), 4);
    let mut share = Holding::default();
    share.take(away());
    assert_eq!(share.free(), 0);
}

#[test]
fn a_question_names_what_is_used_and_kept_and_wants_as_much_as_the_busiest_second_took() {
    let asked = busy(3, 100).ask(8, 5, 0, Some(Duration::from_secs(2)), at(0));
    let right = Ask { must: 11, need: 0, spare: 5, limit: 105, base: 5, next: Some(2_000), linger: 61_000 };
    assert_eq!(asked, right);
    assert_eq!(busy(3, 100).ask(8, 5, 7, None, at(0)).need, 7);
}

#[test]
fn a_question_gives_back_what_is_kept_beyond_demand_and_beyond_a_part_of_what_was_left() {
    for (free, left, gateways, kept) in [(50, 100, 4, 8), (50, 0, 4, 6), (50, 0, 1, 8), (5, 100, 4, 5)] {
        let mut holding = busy(free, left);
        let asked = holding.ask(8, 0, 0, None, Now { gateways, ..at(0) });
        assert_eq!((asked.must, holding.free()), (8 + kept, kept), "{free} kept, {left} left, {gateways} gateways");
    }
}

#[test]
fn a_question_wants_a_slot_for_a_call_that_lately_found_none() {
    let mut holding = with_left(0, 0);
    assert_eq!(holding.ask(0, 0, 0, None, at(0)).need, 0);
    holding.missed(at(0));
    assert_eq!(holding.ask(0, 0, 0, None, at(RECHECK - 1)).need, 1);
    assert_eq!(holding.ask(0, 0, 2, None, at(RECHECK - 1)).need, 2, "it is one of those that wait");
    assert_eq!(holding.ask(0, 0, 0, None, at(RECHECK)).need, 0, "it is gone");
    holding.give_back(1, Redis::There);
    let asked = holding.ask(0, 0, 0, None, at(RECHECK - 1));
    assert_eq!((asked.must, asked.need), (1, 0), "a slot that came back is kept for it");
}

#[test]
fn an_answer_makes_ready_what_is_held_beyond_what_was_used_and_kept() {
    let mut holding = with_left(2, 0);
    let asked = Ask { must: 5, ..holding.ask(3, 0, 0, None, at(0)) };
    holding.answer(&asked, &Answer { held: 9, left: 40, next: Some(700) }, at(100));
    let found = (holding.free(), holding.left(), holding.next_elsewhere());
    assert_eq!(found, (4, 40, Some(Duration::from_millis(800))), "two were given back with the question");
    holding.answer(&asked, &Answer { held: 1, left: -1, next: None }, at(200));
    assert_eq!((holding.free(), holding.left(), holding.next_elsewhere()), (4, 0, None));
}

#[test]
fn nothing_is_asked_while_nothing_changes() {
    assert!(!Holding::default().is_due(0, at(0)));
    assert!(!busy(8, 100).is_due(8, at(0)));
}

#[test]
fn a_question_is_due_where_redis_does_not_know_what_is_held_but_once_until_it_is_answered() {
    let mut holding = Holding::default();
    assert!(!holding.is_due(1, away()));
    assert!(holding.is_due(1, at(0)));
    assert!(!holding.is_due(1, at(0)));
    holding.unanswered();
    assert!(holding.is_due(1, at(0)));
    let asked = holding.ask(1, 0, 0, None, at(0));
    holding.answer(&asked, &Answer { held: 1, left: 50, next: None }, at(0));
    assert!(!holding.is_due(1, at(0)));
    assert!(holding.is_due(0, at(0)), "a slot that is not used any more is given back");
}

#[test]
fn a_question_is_due_below_half_of_what_is_to_be_ready_and_above_twice_as_much() {
    for (free, used, due) in [(4, 0, false), (3, 0, true), (3, 100, false), (16, 0, false), (17, 0, true)] {
        // Redis knows of it, so that only the number ready is a reason.
        let mut holding = Holding { claimed: used + free, ..busy(free, 900) };
        assert_eq!(holding.is_due(used, at(0)), due, "{free} ready, {used} used");
    }
    let scarce = busy(3, 13);
    assert!(!Holding { claimed: 3, ..scarce }.is_due(0, at(0)), "of 16 that were left, two are to be ready here");
}

#[test]
fn an_answer_grows_old_sooner_while_others_may_want_what_is_ready() {
    let refresh = REFRESH.as_millis() as u64;
    let renew = RENEW.as_millis() as u64;
    let kept = || Holding { claimed: 8, ..busy(8, 100) };
    let one = || Holding { demand: Demand::default(), ..with_left(0, 100) };
    for (holding, used, now, due) in [
        (kept(), 0, at(refresh - 1), false),
        (kept(), 0, at(refresh), true),
        (kept(), 0, alone(at(refresh)), false),
        (one(), 0, at(refresh), false),
        (Holding { claimed: 1, ..one() }, 1, at(renew - 1), false),
        (Holding { claimed: 1, ..one() }, 1, at(renew), true),
        (one(), 0, at(renew), false),
    ] {
        assert_eq!(holding.clone().is_due(used, now), due, "{holding:?} {used} used at {:?}", now.time);
    }
}

#[test]
fn a_refused_caller_is_asked_for_again_after_half_the_time_that_a_refusal_is_believed() {
    for (millis, due) in [(0, false), (RECHECK / 2 - 1, false), (RECHECK / 2, true)] {
        let mut holding = with_left(0, 0);
        holding.missed(at(millis));
        assert_eq!(holding.is_due(0, at(millis)), due, "{millis} ms after the answer");
    }
    let mut gone = with_left(0, 0);
    gone.missed(at(0));
    assert!(!gone.is_due(0, at(RECHECK)), "nobody is there any more");
    let mut unknown = Holding::default();
    unknown.missed(at(0));
    assert!(unknown.is_due(0, at(0)), "nothing was said so far");
    let mut full = Holding { claimed: 100, ..with_left(0, 0) };
    full.missed(at(RECHECK));
    assert!(!full.is_due(100, at(RECHECK)), "the limit is reached here alone");
}

#[test]
fn the_busiest_second_counts_less_and_less_until_only_the_last_call_keeps_one() {
    let wanted = |millis| busy(0, 0).demand.wanted(at(millis));
    assert_eq!([0, 999, 1_000, 2_000, 3_000, 9_999, 10_000].map(wanted), [8, 8, 6, 4, 3, 1, 0]);
    let mut quieter = busy(0, 0);
    quieter.take(at(1_000));
    assert_eq!(quieter.demand.wanted(at(1_000)), 6, "the busier second before counts still");
    (0..9).for_each(|_| quieter.take(at(1_500)));
    assert_eq!(quieter.demand.wanted(at(1_500)), 10);
    let thrice = Now { terms: Terms { ready: 3, ..at(0).terms }, ..at(0) };
    assert_eq!(busy(0, 0).demand.wanted(thrice), 24);
}

#[test]
fn what_remains_is_what_is_ready_and_left_within_the_limit() {
    for (holding, used, now, remaining) in [
        (with_left(3, 20), 10, at(0), 23),
        (with_left(3, 20), 90, at(0), 10),
        (with_ready(3), 40, at(0), 60),
        (with_ready(3), 101, at(0), 0),
        (with_left(3, 20), 10, away(), 15),
        (with_left(3, 20), 24, away(), 3),
        (with_left(9, 20), 98, away(), 2),
    ] {
        assert_eq!(holding.remaining(used, now), remaining, "{holding:?} {used} used");
    }
}

#[test]
fn it_is_idle_once_redis_has_everything_back_and_nothing_is_on_its_way() {
    assert!(Holding::default().is_idle());
    assert!(!with_ready(1).is_idle());
    assert!(!Holding { claimed: 0, ..with_ready(1) }.is_idle());
    assert!(!Holding { claimed: 1, ..Holding::default() }.is_idle());
    assert!(!Holding { asking: true, ..Holding::default() }.is_idle());
}

#[test]
fn a_lapsed_or_closed_holding_keeps_nothing_ready_and_a_closed_one_wants_nothing() {
    let (mut lapsed, mut closed) = (busy(8, 900), busy(8, 900));
    lapsed.lapse();
    closed.close();
    assert_eq!((lapsed.free(), lapsed.ask(0, 0, 0, None, at(0)).spare), (0, 8));
    assert_eq!((closed.free(), closed.ask(0, 0, 0, None, at(0)).spare), (0, 0));
}
