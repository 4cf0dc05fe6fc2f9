//! One user's limits, in many orders of gateways' threads.

use protocol::lease::share;

use super::tests::{chute, user};
use super::*;
use crate::lease::interleavings::{GATEWAYS, Most, Shared};

const CAPS: Caps = Caps { per_minute: 5, at_once: 3 };

/// Fails if there are ever more calls at once, or in all.
fn at_most(most: Most, doubts: bool) {
    let (user, chute) = (user(0), chute());
    let shared = Shared {
        subjects: vec![Subject::Rate(user.id, None), Subject::AtOnce(user.id, None)],
        book: Box::new(|leases| Limits::new(CAPS, leases)),
        call: move |limits: &Arc<Limits>, leases: &Leases| match limits.try_take(&user, &chute, leases.moment()) {
            Entrance::Open(taken) => Some(Permit { taken: Some(taken) }),
            Entrance::Closed(_) | Entrance::Ask(_) => None,
        },
        end: |permit, _| drop(permit),
        gives_back: false,
    };
    shared.lets_in_at_most(most, doubts);
}

#[test]
fn in_every_order_of_threads_there_are_no_more_calls_than_the_user_may_have() {
    at_most(Most { at_once: CAPS.at_once.into(), in_all: CAPS.per_minute.into() }, false);
}

#[test]
fn in_every_order_of_threads_gateways_that_doubt_redis_add_their_share_at_most() {
    let bound = |limit: u32| u64::from(limit) + u64::from(GATEWAYS - 1) * share(limit.into(), GATEWAYS);
    at_most(Most { at_once: bound(CAPS.at_once), in_all: bound(CAPS.per_minute) }, true);
}
