//! What a decision costs, about each of the limits.

use std::time::Duration;

use gateway::clock::Clock;
use protocol::ids::{ChuteId, InstanceId, WriterId};
use protocol::keys::Key;
use protocol::principal::{Bucket, FundsEntry, UserEntry};
use rustix::time::{ClockId, clock_gettime};

use super::{Sharer, chute, limited};
use crate::who::{Who, user};

const CALLS: u32 = 200_000;
const USERS: usize = 1_000;
/// Rounds after which each limit keeps slots ready.
const WARM: usize = 3;
/// Calls a day, or at once: nobody gets near it.
const PLENTY: u32 = 1_000_000;
/// What a decision without a question may cost in a release build.
const MOST: Duration = Duration::from_micros(1);

/// Processor time of this thread, on which alone a test decides: the desk and Redis work beside it, on the same cores.
fn worked() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement: make prove limits"]
async fn measure_the_cost_of_a_decision() {
    let who = Who::start().await;
    let sharer = Sharer::start(&who, &who.redis.url(), WriterId::random()).await;
    let chute = chute();
    let users: Vec<_> = (0..USERS).map(|_| limited(PLENTY, PLENTY)).collect();
    let refused = limited(1, 1);
    for user in users.iter().chain([&refused]).cycle().take(WARM * USERS) {
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
    say(&sharer, "caller", &format!("let in: {passed:?}, ended: {ended:?}, turned away: {turned_away:?}"));
    assert_cheap(passed.max(turned_away));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement: make prove limits"]
async fn measure_the_cost_of_an_allowance() {
    let who = Who::start().await;
    let sharer = Sharer::start(&who, &who.redis.url(), WriterId::random()).await;
    let (chute, now) = (ChuteId::random(), Clock::default().now());
    let users: Vec<_> =
        (0..USERS).map(|_| UserEntry { quotas: [(Bucket::Default, PLENTY.into())].into(), ..user() }).collect();
    for user in &users {
        let funds = FundsEntry { balance: 0, day: now.date_naive(), used: [].into(), marks: [].into() };
        who.publish(&Key::funds(user.id), 1, &funds);
    }
    let mut deciding = Duration::ZERO;
    for round in 0..WARM + CALLS as usize / USERS {
        let mut holds = Vec::with_capacity(USERS);
        let began = worked();
        for user in &users {
            holds.push(sharer.quota.check(user, chute, now).await);
        }
        if round >= WARM {
            deciding += worked() - began;
        }
        assert!(holds.iter().all(Result::is_ok));
    }
    let passed = deciding / CALLS;
    say(&sharer, "quota", &format!("let in: {passed:?}"));
    assert_cheap(passed);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement: make prove limits"]
async fn measure_the_cost_of_a_place() {
    let who = Who::start().await;
    let sharer = Sharer::start(&who, &who.redis.url(), WriterId::random()).await;
    let instances: Vec<_> = (0..USERS).map(|_| InstanceId::random()).collect();
    let mut deciding = Duration::ZERO;
    for round in 0..WARM + CALLS as usize / USERS {
        let mut slots = Vec::with_capacity(USERS);
        let began = worked();
        for instance in &instances {
            slots.push(sharer.instances.take(*instance, PLENTY).await);
        }
        if round >= WARM {
            deciding += worked() - began;
        }
        assert!(slots.iter().all(Option::is_some));
    }
    let passed = deciding / CALLS;
    say(&sharer, "instance", &format!("let in: {passed:?}"));
    assert_cheap(passed);
}

#[expect(clippy::print_stdout, reason = "a measurement is read")]
fn say(sharer: &Sharer, limit: &str, costs: &str) {
    let decisions = |way| sharer.metrics.limits.decisions.with_label_values(&[limit, way]).get();
    let (local, asked) = (decisions("local"), decisions("asked"));
    println!("processor time of {limit}: {costs}; {local} decisions local, {asked} asked");
}

/// Without optimisation it may cost what it will.
fn assert_cheap(cost: Duration) {
    assert!(std::env::var_os("CHUTES_PROOF").is_none() || cost <= MOST, "{cost:?}");
}
