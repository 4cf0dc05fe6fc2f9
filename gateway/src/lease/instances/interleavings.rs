//! Two gateways that share the places of one instance, in many orders of their threads.

use std::sync::atomic::{AtomicU64, Ordering};

use protocol::ids::WriterId;
use protocol::lease::claims::Claims;
use protocol::lease::share;
use shuttle::thread::{self, yield_now};

use super::*;
use crate::metrics::Metrics;
use crate::sync::{Mutex, explore};

const CONCURRENCY: u32 = 3;
const GATEWAYS: u32 = 2;
/// On the clock of the model: it has settled, and nobody is silent for long.
const TIME: i64 = 2_000;
/// Longer than the test takes.
const LIFETIME: Duration = Duration::from_hours(1);

/// The places of a gateway that hears Redis and one other gateway.
fn gateway(metrics: &Arc<Metrics>) -> Arc<Instances> {
    let (leases, _questions) = Leases::new(LIFETIME, Arc::clone(metrics));
    leases.link.hear(leases.since.elapsed(), GATEWAYS);
    leases.link.settle(true);
    Arc::new(Instances::new(leases))
}

/// Calls of all gateways.
#[derive(Default)]
struct Seen {
    in_flight: AtomicU64,
    passed: AtomicU64,
}

/// Calls one after the other.
fn calls(places: &Arc<Instances>, instance: InstanceId, seen: &Seen, most: u64) {
    for _ in 0..4 {
        yield_now();
        if places.try_take(instance, CONCURRENCY, places.leases.moment()) != Verdict::Fits {
            continue;
        }
        let slot = Slot { instances: Arc::clone(places), instance };
        let at_once = seen.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
        assert!(at_once <= most, "{at_once} calls at once");
        seen.passed.fetch_add(1, Ordering::Relaxed);
        yield_now();
        seen.in_flight.fetch_sub(1, Ordering::Relaxed);
        drop(slot);
    }
}

/// Asks again and again; between a question and its answer anything may happen. A desk that doubts Redis in the middle
/// claims again what is held.
fn desk(places: &Instances, instance: InstanceId, claims: &Mutex<Claims<()>>, gateway: WriterId, doubts: bool) {
    let (subject, link) = (Subject::Instance(instance), &places.leases.link);
    for sequence in 1..=6 {
        if doubts && sequence == 3 {
            link.settle(false);
            places.lapse();
        }
        yield_now();
        let Some(asked) = places.ask(&subject, 0, places.leases.moment()) else { continue };
        let (_, answer) = claims.lock().unwrap().ask((), gateway, sequence, GATEWAYS, &asked, TIME);
        yield_now();
        places.answer(&subject, &asked, Some(&answer), places.leases.moment());
        link.settle(true);
    }
}

/// Fails if there are ever more calls at once.
fn at_most(most: u64, doubts: bool) {
    let (all, metrics) = (Arc::new(AtomicU64::new(0)), Arc::new(Metrics::new().unwrap()));
    let passed = Arc::clone(&all);
    explore(1000, move || {
        let (seen, instance) = (Arc::new(Seen::default()), InstanceId::random());
        let gateways = [(); GATEWAYS as usize].map(|()| WriterId::random());
        let mut redis = Claims::default();
        for time in [0, TIME / 2, TIME] {
            gateways.iter().for_each(|gateway| drop(redis.beat(*gateway, time)));
        }
        let redis = Arc::new(Mutex::new(redis));
        let mut threads = Vec::new();
        for writer in gateways {
            let places = gateway(&metrics);
            for _ in 0..2 {
                let (places, seen) = (places.clone(), seen.clone());
                threads.push(thread::spawn(move || calls(&places, instance, &seen, most)));
            }
            let redis = redis.clone();
            threads.push(thread::spawn(move || desk(&places, instance, &redis, writer, doubts)));
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        passed.fetch_add(seen.passed.load(Ordering::Relaxed), Ordering::Relaxed);
    });
    assert!(all.load(Ordering::Relaxed) > 1000, "few calls were let in: nothing was tried");
}

#[test]
fn in_every_order_of_threads_there_are_no_more_calls_at_once_than_the_instance_takes() {
    at_most(CONCURRENCY.into(), false);
}

#[test]
fn in_every_order_of_threads_gateways_that_doubt_redis_add_their_share_at_most() {
    at_most(u64::from(CONCURRENCY) + u64::from(GATEWAYS - 1) * share(CONCURRENCY.into(), GATEWAYS), true);
}
