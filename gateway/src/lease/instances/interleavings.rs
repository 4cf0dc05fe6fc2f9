//! The places of one instance, in many orders of gateways' threads.

use protocol::lease::share;

use super::*;
use crate::lease::interleavings::{GATEWAYS, Most, Shared};

const CONCURRENCY: u32 = 3;

/// Fails if there are ever more calls at once.
fn at_most(at_once: u64, doubts: bool) {
    let instance = InstanceId::random();
    let shared = Shared {
        subjects: vec![Subject::Instance(instance)],
        book: Box::new(Instances::new),
        call: move |places: &Arc<Instances>, leases: &Leases| {
            let verdict = places.try_take(instance, CONCURRENCY, leases.moment());
            (verdict == Verdict::Fits).then(|| Slot { instances: Arc::clone(places), instance })
        },
        end: |slot, _| drop(slot),
        gives_back: true,
    };
    shared.lets_in_at_most(Most { at_once, in_all: u64::MAX }, doubts);
}

#[test]
fn in_every_order_of_threads_there_are_no_more_calls_at_once_than_the_instance_takes() {
    at_most(CONCURRENCY.into(), false);
}

#[test]
fn in_every_order_of_threads_gateways_that_doubt_redis_add_their_share_at_most() {
    at_most(u64::from(CONCURRENCY) + u64::from(GATEWAYS - 1) * share(CONCURRENCY.into(), GATEWAYS), true);
}
