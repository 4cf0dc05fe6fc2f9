//! The table of failures.

use std::collections::HashSet;

use uuid::Uuid;

use super::*;

fn instance(number: u128) -> InstanceId {
    InstanceId(Uuid::from_u128(number))
}

fn chute() -> ChuteId {
    ChuteId(Uuid::from_u128(7))
}

fn status(code: u16, detail: &str) -> Failure {
    Failure::Status { code, detail: Some(detail.to_owned()), is_foreign: false }
}

fn without_detail(code: u16, is_foreign: bool) -> Failure {
    Failure::Status { code, detail: None, is_foreign }
}

fn first(failure: &Failure) -> Verdict {
    Attempts::default().failed(instance(1), failure)
}

/// All attempts on distinct instances, each failing like this, until the call is over.
fn until_over(failures: &[Failure]) -> (Attempts, Vec<Next>) {
    let mut attempts = Attempts::default();
    let nexts = (1..).zip(failures).map(|(number, failure)| attempts.failed(instance(number), failure).next).collect();
    (attempts, nexts)
}

#[test]
fn failures_are_judged_by_the_table() {
    let relay = |code| Next::Relay(StatusCode::from_u16(code).unwrap());
    let (another, works, fails) = (Next::Another, Outcome::Works, Outcome::Fails);
    let (full, unknown) = (Outcome::Full, Outcome::Unknown);
    let too_late = Next::GiveUp(Refusal::UpstreamTimeout);
    let table = [
        (status(429, "full"), "RATE_LIMIT", Blame::Platform, full, false, another.clone()),
        (Failure::Connect, "CONNECT_FAILED", Blame::Network, fails, false, another.clone()),
        (Failure::Closed, "CONNECTION_CLOSED", Blame::Network, fails, false, another.clone()),
        (Failure::Timeout, "TIMEOUT", Blame::Instance, fails, false, another.clone()),
        (Failure::Patience, "TIMEOUT", Blame::Instance, unknown, false, too_late),
        (status(500, "x"), "SERVER_ERROR", Blame::Instance, fails, false, another.clone()),
        (status(503, "x"), "SERVER_ERROR", Blame::Instance, fails, false, another.clone()),
        (Failure::Garbled, "GARBLED_ANSWER", Blame::Instance, fails, false, another.clone()),
        (status(302, "x"), "GARBLED_ANSWER", Blame::Instance, fails, false, another.clone()),
        (status(401, "go away (sig)"), "UNAUTHORIZED", Blame::Instance, fails, true, another.clone()),
        (status(426, "x"), "KEY_EXCHANGE_REQUIRED", Blame::Instance, fails, true, another.clone()),
        (status(451, "x"), "DECRYPTION_FAILED", Blame::Instance, fails, true, another.clone()),
        (status(404, "Bad path"), "BAD_PATH", Blame::Instance, fails, true, another.clone()),
        (status(404, "Bad path: /x"), "BAD_PATH", Blame::Instance, fails, true, another.clone()),
        (status(404, "no such model"), "BAD_REQUEST", Blame::Client, works, false, relay(404)),
        (without_detail(404, false), "BAD_REQUEST", Blame::Client, works, false, relay(404)),
        (without_detail(404, true), "GARBLED_ANSWER", Blame::Instance, fails, false, another.clone()),
        (status(408, "x"), "TIMEOUT", Blame::Instance, fails, false, another.clone()),
        (status(400, "x"), "BAD_REQUEST", Blame::Client, works, false, relay(400)),
        (status(422, "x"), "BAD_REQUEST", Blame::Client, works, false, relay(422)),
        (Failure::EmptyStream, "EMPTY_STREAM", Blame::Instance, unknown, false, another.clone()),
        (Failure::ErrorEvent { code: Some(400) }, "BAD_REQUEST", Blame::Client, works, false, relay(400)),
        (Failure::ErrorEvent { code: Some(429) }, "RATE_LIMIT", Blame::Platform, full, false, another.clone()),
        (Failure::ErrorEvent { code: Some(500) }, "SERVER_ERROR", Blame::Instance, fails, false, another.clone()),
        (Failure::ErrorEvent { code: None }, "SERVER_ERROR", Blame::Instance, fails, false, another.clone()),
        (Failure::Edge, "EDGE_ERROR", Blame::Platform, unknown, false, another),
    ];
    for (failure, reason, blame, outcome, report, next) in table {
        let verdict = first(&failure);
        assert_eq!(verdict.reason.as_str(), reason, "{failure:?}");
        let judged = (verdict.blame, verdict.outcome, verdict.report, verdict.next);
        assert_eq!(judged, (blame, outcome, report, next), "{failure:?}");
    }
}

#[test]
fn every_status_is_judged_and_only_other_4xx_are_relayed() {
    for code in 0..=u16::MAX {
        let relayed = |is_foreign| matches!(first(&without_detail(code, is_foreign)).next, Next::Relay(_));
        let is_other = (400..500).contains(&code) && ![401, 408, 426, 429, 451].contains(&code);
        assert_eq!((relayed(false), relayed(true)), (is_other, false), "{code}");
    }
}

#[test]
fn a_call_has_at_most_five_attempts() {
    let (attempts, nexts) =
        until_over(&[Failure::Connect, Failure::Connect, Failure::Timeout, Failure::Connect, Failure::Connect]);
    assert_eq!(nexts[..4], [Next::Another, Next::Another, Next::Another, Next::Another]);
    assert_eq!(nexts[4], Next::GiveUp(Refusal::Exhausted));
    let going_on = (0..5).map(|count| until_over(&vec![Failure::Connect; count]).0.may_go_on());
    assert_eq!(going_on.collect::<Vec<_>>(), [true, true, true, true, false]);
    assert_eq!(attempts.tried(), [1, 2, 3, 4, 5].map(instance));
}

#[test]
fn an_empty_stream_is_tried_on_one_other_instance_and_then_given_up_without_a_strike() {
    let (_, nexts) = until_over(&[Failure::EmptyStream, Failure::EmptyStream]);
    assert_eq!(nexts, [Next::Another, Next::GiveUp(Refusal::EmptyAnswer)]);
    let (_, nexts) = until_over(&[Failure::EmptyStream, Failure::Connect, Failure::EmptyStream]);
    assert_eq!(nexts, [Next::Another, Next::Another, Next::GiveUp(Refusal::EmptyAnswer)]);
    assert_eq!(first(&Failure::EmptyStream).outcome, Outcome::Unknown);
}

#[test]
fn an_instance_whose_stream_was_empty_is_known_when_another_answers() {
    let (attempts, _) = until_over(&[Failure::Connect, Failure::EmptyStream]);
    assert_eq!(attempts.empty_ones().collect::<Vec<_>>(), [instance(2)]);
}

#[test]
fn c13_a_lack_of_targets_is_never_our_error() {
    let rate = || status(429, "full");
    let table = [
        (vec![], Shortage::None, Refusal::NoInstance(chute())),
        (vec![], Shortage::Busy, Refusal::AtCapacity),
        (vec![rate()], Shortage::None, Refusal::AtCapacity),
        (vec![rate(), rate()], Shortage::Busy, Refusal::AtCapacity),
        (vec![Failure::Connect], Shortage::Busy, Refusal::AtCapacity),
        (vec![Failure::Timeout, Failure::Timeout], Shortage::None, Refusal::UpstreamTimeout),
        (vec![Failure::Timeout, rate()], Shortage::None, Refusal::Exhausted),
        (vec![Failure::Connect], Shortage::None, Refusal::Exhausted),
        (vec![status(500, "x"), rate()], Shortage::None, Refusal::Exhausted),
        (vec![Failure::EmptyStream], Shortage::None, Refusal::EmptyAnswer),
        (vec![Failure::Garbled], Shortage::None, Refusal::BadAnswer),
        (vec![Failure::Connect], Shortage::Spent, Refusal::Exhausted),
        (vec![rate()], Shortage::Spent, Refusal::AtCapacity),
    ];
    for (failures, shortage, expected) in table {
        let refusal = until_over(&failures).0.refusal(chute(), shortage);
        assert_eq!(refusal, expected, "{failures:?}");
        assert_ne!(refusal.status(), StatusCode::INTERNAL_SERVER_ERROR);
    }
}

#[test]
fn c2_after_the_first_byte_nothing_is_tried_again() {
    for failure in [Failure::Closed, Failure::Timeout, Failure::Garbled, Failure::ErrorEvent { code: Some(400) }] {
        let verdict = Attempts::interrupted(&failure);
        assert!(matches!(verdict.next, Next::GiveUp(_)), "{failure:?}");
    }
    assert_eq!(Attempts::interrupted(&Failure::Closed).outcome, Outcome::Fails);
}

#[test]
fn reasons_have_distinct_words() {
    let words: HashSet<&str> = Reason::ALL.into_iter().map(Reason::as_str).collect();
    assert_eq!(words.len(), Reason::ALL.len());
}
