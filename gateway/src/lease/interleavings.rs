//! Two gateways that share one limit, in many orders of their threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use protocol::ids::WriterId;
use protocol::lease::claims::Claims;
use protocol::lease::holding::{Now, Verdict};
use protocol::lease::slots::Slots;
use protocol::lease::{Redis, Terms};

use crate::sync::{Mutex, explore};

const LIMIT: u64 = 3;
/// On the clock of the model: it has settled, and nobody is silent for long.
const TIME: i64 = 2_000;

/// One gateway's slots, which its calls and its desk share.
type Shared = Arc<Mutex<Slots>>;

fn now() -> Now {
    let terms = Terms {
        limit: LIMIT,
        linger: Duration::ZERO,
        recheck: Duration::from_millis(250),
        keen: Duration::from_millis(250),
        ready: 1,
        shared: true,
    };
    Now { terms, time: Duration::ZERO, redis: Redis::There, gateways: 2 }
}

/// Calls one after the other; `in_flight` counts those of all gateways.
fn calls(slots: &Shared, in_flight: &AtomicU64, passed: &AtomicU64) {
    for _ in 0..4 {
        let fits = {
            let mut slots = slots.lock().unwrap();
            let fits = slots.test(now()) == Verdict::Fits;
            if fits {
                slots.take(now())
            } else {
                slots.missed(now())
            }
            fits
        };
        if fits {
            assert!(in_flight.fetch_add(1, Ordering::Relaxed) < LIMIT, "more calls at once than the limit");
            passed.fetch_add(1, Ordering::Relaxed);
            shuttle::thread::yield_now();
            in_flight.fetch_sub(1, Ordering::Relaxed);
            slots.lock().unwrap().release(now());
        }
        shuttle::thread::yield_now();
    }
}

/// Asks again and again; between a question and its answer anything may happen.
fn desk(slots: &Shared, claims: &Mutex<Claims<()>>, gateway: WriterId) {
    for sequence in 1..=6 {
        let asked = slots.lock().unwrap().ask(0, now());
        let (_, answer) = claims.lock().unwrap().ask((), gateway, sequence, 2, &asked, TIME);
        slots.lock().unwrap().answer(&asked, &answer, now());
    }
}

#[test]
fn in_every_order_of_threads_there_are_no_more_calls_at_once_than_the_limit() {
    let passed = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&passed);
    explore(1000, move || {
        let (in_flight, gateways) = (Arc::new(AtomicU64::new(0)), [WriterId::random(), WriterId::random()]);
        let mut redis = Claims::default();
        for time in [0, TIME / 2, TIME] {
            for gateway in gateways {
                redis.beat(gateway, time);
            }
        }
        let redis = Arc::new(Mutex::new(redis));
        let mut threads = Vec::new();
        for gateway in gateways {
            let slots = Shared::new(Mutex::new(Slots::default()));
            for _ in 0..2 {
                let (slots, in_flight, counted) = (slots.clone(), in_flight.clone(), counted.clone());
                threads.push(shuttle::thread::spawn(move || calls(&slots, &in_flight, &counted)));
            }
            let redis = redis.clone();
            threads.push(shuttle::thread::spawn(move || desk(&slots, &redis, gateway)));
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
    assert!(passed.load(Ordering::Relaxed) > 1000, "few calls were let in: nothing was tried");
}
