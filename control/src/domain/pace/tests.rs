//! Known figures.

use serde_json::json;

use super::*;
use crate::domain::sample::{at, record};
use protocol::usage::Facts;

const STREAM: Facts = Facts { it: 100, ot: 50, tokens: 50, ttft: Some(0.5), tt: 3.0 };

fn taught(kind: Kind, facts: Facts, times: u32) -> Pace {
    let mut pace = Pace::default();
    for second in 0..times {
        pace.measure(&record(kind, f64::from(second), facts));
    }
    pace
}

#[test]
fn averages_measure_nobody_before_their_twenty_fifth_sample() {
    let early = taught(Kind::Stream, STREAM, 24).measure(&record(Kind::Stream, 30.0, STREAM));
    let expected = json!({"it": 100, "ot": 50, "tokens": 50, "ttft": 0.5, "tt": 3.0, "tps": 50.0 / 3.0, "ctps": 50.0,
        "mc": 0.25, "maspt": null, "ptps": null, "otps": null, "nc": null});
    assert_eq!(serde_json::to_value(early).unwrap(), expected);
}

#[test]
fn a_stream_is_measured_by_the_averages_of_those_before_it() {
    let slow = Facts { it: 400, ot: 10, tokens: 10, ttft: Some(4.0), tt: 5.0 };
    let metrics = taught(Kind::Stream, STREAM, 25).measure(&record(Kind::Stream, 30.0, slow));
    let expected = json!({"it": 400, "ot": 10, "tokens": 10, "ttft": 4.0, "tt": 5.0, "tps": 2.0, "ctps": 82.0,
        "mc": 0.25, "maspt": 0.02, "ptps": 200.0, "otps": 20.0, "nc": 2.5});
    assert_eq!(serde_json::to_value(metrics).unwrap(), expected);
}

#[test]
fn an_answer_in_one_piece_is_measured_by_streams_but_teaches_only_seconds_per_token() {
    let whole = Facts { ttft: None, ..STREAM };
    let pace = taught(Kind::Complete, whole, 30);
    assert_eq!((pace.ptps, pace.otps), (None, None));
    assert_eq!(pace.spt.map(|average| (average.samples, average.value)), Some((30, 0.02)));
    let Some(Metrics::Tokens(metrics)) = taught(Kind::Stream, STREAM, 25).measure(&record(Kind::Complete, 30.0, whole))
    else {
        panic!("tokens are measured")
    };
    assert_eq!((metrics.ttft, metrics.nc), (None, Some(3.0)));
}

#[test]
fn diffusion_is_measured_in_steps() {
    let facts = Facts { tt: 4.0, ..Facts::default() };
    let metrics = taught(Kind::Steps, facts, 25).measure(&record(Kind::Steps, 30.0, facts));
    let expected = json!({"steps": 20, "tt": 4.0, "sps": 5.0, "mc": 0.25, "masps": 0.2});
    assert_eq!(serde_json::to_value(metrics).unwrap(), expected);
}

#[test]
fn what_is_measured_by_time_alone_has_no_metrics() {
    assert_eq!(taught(Kind::Time, STREAM, 30).measure(&record(Kind::Time, 30.0, STREAM)), None);
}

#[test]
fn only_whole_answers_teach() {
    for (outcome, delivered) in
        [(Outcome::Failed, true), (Outcome::Aborted, true), (Outcome::Lost, true), (Outcome::Finished, false)]
    {
        let mut pace = Pace::default();
        let metrics = pace.measure(&Record { outcome, delivered, ..record(Kind::Stream, 1.0, STREAM) });
        assert_eq!(pace, Pace::default());
        assert!(metrics.is_some());
    }
}

#[test]
fn a_sample_weighs_by_the_time_since_the_one_before() {
    let held = Average { value: 100.0, samples: 1, at: at(0.0) };
    let weights = [(0.0, 0.000_1), (6.0, 1.0 - (-0.01_f64).exp()), (600.0, 0.1), (-5.0, 0.000_1)];
    for (seconds, alpha) in weights {
        let next = Average::after(Some(held), 200.0, at(seconds));
        assert!((next.value - (100.0 + 100.0 * alpha)).abs() < 1e-9, "{seconds}");
        assert_eq!((next.samples, next.at), (2, at(seconds.max(0.0))));
    }
}

#[test]
fn numbers_that_no_quotient_can_be_made_of_stay_finite() {
    for tt in [0.0, -1.0, f64::MIN_POSITIVE] {
        let facts = Facts { it: u64::MAX, ot: u64::MAX, tokens: 0, ttft: Some(0.0), tt };
        let mut pace = Pace::default();
        for second in 0..40 {
            let metrics = pace.measure(&record(Kind::Stream, f64::from(second), facts)).unwrap();
            let text = serde_json::to_string(&metrics).unwrap();
            assert_eq!(serde_json::from_str::<Metrics>(&text).unwrap(), metrics);
        }
    }
}
