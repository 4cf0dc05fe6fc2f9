//! One allowance, in many orders of gateways' threads.

use super::*;
use crate::lease::interleavings::{Most, Shared};
use crate::metrics::Metrics;

const QUOTA: u64 = 5;

/// Fails if more calls are delivered or under way than the allowance has; Redis away adds nothing to it.
fn never_exceeded(doubts: bool) {
    let now = DateTime::from_timestamp(1_800_014_400, 0).unwrap();
    let key = AccountKey { user: UserId::random(), bucket: Bucket::Default, day: now.date_naive() };
    let principals = Principals::alone(Arc::new(Metrics::new().unwrap()));
    let shared = Shared {
        subjects: vec![key.subject()],
        book: Box::new(move |leases| Quota::new(Arc::clone(&principals), leases, WriterId::random())),
        call: move |quota: &Arc<Quota>, leases: &Leases| {
            let verdict = quota.try_hold(key, QUOTA, None, now, leases.moment());
            (verdict == Verdict::Fits).then(|| QuotaHold {
                accounts: Arc::clone(&quota.accounts),
                leases: Arc::clone(&quota.leases),
                key,
                is_slot: true,
                delivered: None,
            })
        },
        end: |hold: QuotaHold, counts: Option<u64>| match counts {
            Some(sequence) => hold.counted(sequence),
            None => drop(hold),
        },
        gives_back: true,
    };
    shared.lets_in_at_most(Most { at_once: QUOTA, in_all: QUOTA }, doubts);
}

#[test]
fn in_every_order_of_threads_there_are_no_more_calls_than_the_allowance_has() {
    never_exceeded(false);
}

#[test]
fn in_every_order_of_threads_gateways_that_doubt_redis_add_none() {
    never_exceeded(true);
}
