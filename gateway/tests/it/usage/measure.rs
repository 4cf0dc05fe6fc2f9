//! What a record costs a call.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gateway::clock::Clock;
use gateway::metrics::Metrics;
use gateway::usage::{Settings, UsageLog};

use super::platform::{admission, chunks, finish};

const CALLS: u32 = 20_000;
const WRITES: u64 = 10;

#[test]
#[ignore = "a measurement: cargo test --release -p gateway --test it measure -- --ignored --nocapture"]
#[expect(clippy::print_stdout, reason = "a measurement is read")]
fn measure_the_cost_of_a_record() {
    let root = tempfile::tempdir_in(Path::new(env!("CARGO_TARGET_TMPDIR"))).unwrap();
    let keep = Duration::from_hours(24);
    let settings = Settings { folder: root.path().to_owned(), segment: 128 << 20, max_calls: 1024, keep };
    let log = UsageLog::open(settings, Clock::default(), Arc::new(Metrics::new().unwrap())).unwrap();
    let admissions: Vec<_> = (0..CALLS).map(|_| admission()).collect();
    let (mut admitting, mut writing, mut finishing) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    for admission in admissions {
        let start = Instant::now();
        let mut flight = log.admit(admission).unwrap();
        let admitted = Instant::now();
        for count in 1..=WRITES {
            flight.progress(chunks(count));
        }
        let written = Instant::now();
        finish(flight);
        admitting += admitted - start;
        writing += written - admitted;
        finishing += written.elapsed();
    }
    let micros = |total: Duration, count: u32| total.as_secs_f64() * 1e6 / f64::from(count);
    println!(
        "admit {:.2} µs, progress {:.2} µs, finish {:.2} µs",
        micros(admitting, CALLS),
        micros(writing, CALLS * 10),
        micros(finishing, CALLS)
    );
    assert!(micros(admitting + finishing, CALLS) < 1000.0);
}
