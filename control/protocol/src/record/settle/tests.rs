//! Tests of `settle`: a table of claims.

use super::*;

#[test]
fn a_claim_is_believed_up_to_ten_times_our_figure() {
    for (claimed, own, settled) in [
        (None, 7, 7),
        (Some(0), 7, 0),
        (Some(70), 7, 70),
        (Some(71), 7, 7),
        (Some(0), 0, 0),
        (Some(1), 0, 0),
        (Some(u64::MAX), u64::MAX / 2, u64::MAX),
        (Some(u64::MAX), 1, 1),
    ] {
        assert_eq!(prompt_tokens(claimed, own), settled, "{claimed:?} {own}");
        assert_eq!(completion_tokens(claimed, own), settled, "{claimed:?} {own}");
    }
}

#[test]
fn a_stream_is_counted_in_chunks() {
    let counters = Counters { chunks: 12, bytes: 400, first_chunk_micros: Some(250_000), ..Counters::default() };
    let found = facts(Kind::Stream, 9, &counters, TimeDelta::milliseconds(1500));
    assert_eq!(found, Facts { it: 9, ot: 12, tokens: 12, ttft: Some(0.25), tt: 1.5 });
}

#[test]
fn a_complete_answer_is_counted_in_bytes() {
    let counters = Counters { bytes: 401, prompt: Some(90), completion: Some(1011), ..Counters::default() };
    let found = facts(Kind::Complete, 9, &counters, TimeDelta::seconds(2));
    assert_eq!(found, Facts { it: 90, ot: 101, tokens: 101, ttft: None, tt: 2.0 });
}

#[test]
fn steps_and_time_have_no_tokens() {
    let counters = Counters { chunks: 1, bytes: 5000, prompt: Some(3), completion: Some(4), ..Counters::default() };
    for kind in [Kind::Steps, Kind::Time] {
        let found = facts(kind, 0, &counters, TimeDelta::seconds(-1));
        assert_eq!(found, Facts::default(), "a clock set back gives no negative time");
        let found = facts(kind, 0, &counters, TimeDelta::milliseconds(2500));
        assert_eq!(found, Facts { tt: 2.5, ..Facts::default() });
    }
}
