//! What a decision costs.

use std::time::Duration;

use protocol::ids::WriterId;
use rustix::time::{ClockId, clock_gettime};

use super::{Sharer, chute, limited};
use crate::who::Who;

const CALLS: u32 = 200_000;
const USERS: usize = 1_000;
/// What a decision without a question may cost in a release build.
const MOST: Duration = Duration::from_micros(1);

/// Processor time of this thread, on which alone a test decides: the desk and Redis work beside it, on the same cores.
fn worked() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement: make prove limits"]
#[expect(clippy::print_stdout, reason = "a measurement is read")]
async fn measure_the_cost_of_a_decision() {
    let who = Who::start().await;
    let sharer = Sharer::start(&who, &who.redis.url(), WriterId::random()).await;
    let chute = chute();
    let users: Vec<_> = (0..USERS).map(|_| limited(1_000_000, 1_000_000)).collect();
    let refused = limited(1, 1);
    for user in users.iter().chain([&refused]).cycle().take(3 * USERS) {
        drop(sharer.limits.take(user, &chute).await);
    }
    let (mut deciding, mut ending) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..CALLS as usize / USERS {
        let mut permits = Vec::with_capacity(USERS);
        let began = worked();
        for user in &users {
            permits.push(sharer.limits.take(user, &chute).await);
        }
        deciding += worked() - began;
        assert!(permits.iter().all(Result::is_ok));
        let began = worked();
        drop(permits);
        ending += worked() - began;
    }
    let (passed, ended) = (deciding / CALLS, ending / CALLS);
    let began = worked();
    for _ in 0..CALLS {
        assert!(sharer.limits.take(&refused, &chute).await.is_err());
    }
    let turned_away = (worked() - began) / CALLS;
    let decisions = |way| sharer.metrics.limits.decisions.with_label_values(&["caller", way]).get();
    println!(
        "processor time let in: {passed:?}, ended: {ended:?}, turned away: {turned_away:?}; {} decisions local, {} asked",
        decisions("local"),
        decisions("asked"),
    );
    // Without optimisation it may cost what it will.
    assert!(std::env::var_os("CHUTES_PROOF").is_none() || passed.max(turned_away) <= MOST);
}
