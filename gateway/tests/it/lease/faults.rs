//! What gateways let in when Redis is away, empty, or answers with errors.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gateway::clock::Clock;
use gateway::refusal::Refusal;
use protocol::ids::{ChuteId, WriterId};
use protocol::keys::Key;
use protocol::lease::Redis;
use protocol::principal::{Bucket, FundsEntry, UserEntry};
use tokio::task::JoinSet;

use super::{LIFETIME, Sharer, chute, let_in, limited};
use crate::freezing_proxy::FreezingProxy;
use crate::redis_states::State;
use crate::who::{Who, eventually, user};

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_each_gateway_keeps_to_its_share_and_claims_it_afterwards() {
    let mut who = Who::start().await;
    let sharers = Sharer::several(&who, 2).await;
    let (user, chute) = (limited(20, 1000), chute());
    who.redis.kill();
    for sharer in &sharers {
        sharer.is_alone().await;
        assert_eq!(sharer.metrics.limits.bound.get(), 0.5);
        assert_eq!(let_in(sharer, &user, &chute, 50).await, 10);
    }
    who.redis.restart();
    for sharer in &sharers {
        sharer.shares().await;
        assert_eq!(sharer.metrics.limits.bound.get(), 0.0);
    }
    for sharer in &sharers {
        assert_eq!(let_in(sharer, &user, &chute, 50).await, 0, "the minute is not over");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_lost_everything_gives_out_nothing_twice() {
    let who = Who::start().await;
    let sharers = Sharer::several(&who, 2).await;
    let (user, chute) = (limited(300, 1000), chute());
    assert_eq!(let_in(&sharers[0], &user, &chute, 200).await, 200);
    redis::cmd("FLUSHALL").exec(&mut who.redis.connection()).unwrap();
    let mut passed = 200;
    let deadline = Instant::now() + Duration::from_secs(4);
    while Instant::now() < deadline {
        for sharer in &sharers {
            passed += let_in(sharer, &user, &chute, 5).await;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Until all have claimed again, the second gateway may have its share: half of the limit.
    assert!((300..=450).contains(&passed), "{passed} passed");
    for sharer in &sharers {
        sharer.shares().await;
        assert_eq!(let_in(sharer, &user, &chute, 20).await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_allowance_has_no_share() {
    let mut who = Who::start().await;
    who.publish_complete(1, 1, 1);
    let sharer = Sharer::start(&who, &who.redis.url(), WriterId::random()).await;
    let user = UserEntry { quotas: [(Bucket::Default, 5)].into(), ..user() };
    let now = Clock::default().now();
    let check = async || sharer.quota.check(&user, ChuteId::random(), now).await;
    let other = UserEntry { quotas: [(Bucket::Default, 500)].into(), ..crate::who::user() };
    let funds = FundsEntry { balance: 0, day: now.date_naive(), used: [].into(), marks: [].into() };
    for id in [user.id, other.id] {
        who.publish(&Key::funds(id), 1, &funds);
        who.principals.funds(id).await.unwrap();
    }
    check().await.unwrap().unwrap().counted(1);
    who.redis.kill();
    sharer.is_alone().await;
    let mut sequence = 1;
    while let Ok(hold) = check().await {
        sequence += 1;
        hold.unwrap().counted(sequence);
    }
    assert!((2..=5).contains(&sequence), "{sequence} calls");
    let unknown = sharer.quota.check(&other, ChuteId::random(), now).await.err().unwrap();
    assert_eq!(unknown.status(), 503);
    assert!(unknown.retry_after().is_some());
    assert!(matches!(unknown, Refusal::NotReady(_)));
}

/// What gateways let in while Redis is in a state: of a caller that was near its limit by then, of one whose allowance was
/// begun, and of one that comes anew.
async fn keep_to_leases(who: &mut Who, sharers: &[Arc<Sharer>], state: State) {
    let (chute, mut sequence) = (chute(), 0);
    let (busy, poor) = (limited(20, 1000), UserEntry { quotas: [(Bucket::Default, 5)].into(), ..user() });
    let funds = FundsEntry { balance: 0, day: Clock::default().now().date_naive(), used: [].into(), marks: [].into() };
    who.publish(&Key::funds(poor.id), 1, &funds);
    who.principals.funds(poor.id).await.unwrap();
    let mut passed = let_in(&sharers[0], &busy, &chute, 15).await;
    let mut free = delivered(&sharers[0], &poor, 1, &mut sequence).await;
    assert_eq!((passed, free), (15, 1));
    let began = Instant::now();
    let end = state.begin(&mut who.redis);
    for sharer in sharers {
        passed += let_in(sharer, &busy, &chute, 50).await;
        free += delivered(sharer, &poor, 10, &mut sequence).await;
        sharer.is_alone().await;
        passed += let_in(sharer, &busy, &chute, 50).await;
        free += delivered(sharer, &poor, 10, &mut sequence).await;
        assert_eq!(let_in(sharer, &limited(20, 1000), &chute, 50).await, 10, "{state:?}");
    }
    // The second has its share at least, whatever the first has spent.
    assert!(passed >= 25, "{state:?}: {passed} of 20 in a minute");
    assert!((1..=5).contains(&free), "{state:?}: {free} of 5 in a day");
    assert!(began.elapsed() < Duration::from_secs(20), "{state:?}: calls hung for {:?}", began.elapsed());
    end(&mut who.redis);
    for sharer in sharers {
        sharer.shares().await;
        eventually("they know each other", async || sharer.metrics.limits.gateways.get() == 2).await;
    }
    for sharer in sharers {
        assert_eq!(let_in(sharer, &limited(20, 1000), &chute, 50).await, 20, "{state:?}");
        passed += let_in(sharer, &busy, &chute, 50).await;
        free += delivered(sharer, &poor, 10, &mut sequence).await;
    }
    // Half more than the limit is what two gateways say they let through.
    assert!(passed <= 30, "{state:?}: {passed} of 20 in a minute");
    assert!(free <= 5, "{state:?}: {free} of 5 in a day");
}

/// Calls against an allowance that are let in and delivered, up to so many tries.
async fn delivered(sharer: &Sharer, user: &UserEntry, tries: usize, sequence: &mut u64) -> usize {
    let now = Clock::default().now();
    let mut passed = 0;
    for _ in 0..tries {
        if let Ok(hold) = sharer.quota.check(user, ChuteId::random(), now).await {
            *sequence += 1;
            // Control counts none of them.
            hold.unwrap().counted(*sequence);
            passed += 1;
        }
    }
    passed
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_answers_with_errors_or_not_at_all_counts_as_away_until_it_does_again() {
    let mut who = Who::start().await;
    who.publish_complete(1, 1, 1);
    let sharers = Sharer::several(&who, 2).await;
    for state in [
        State::WithoutMemory,
        State::Replica,
        State::CannotSave,
        State::WithoutScripts,
        State::Busy,
        State::KnowsNobody,
        State::Paused,
        State::Silent,
        State::Loads,
    ] {
        keep_to_leases(&mut who, &sharers, state).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_in_the_middle_of_many_questions_leaves_no_limit_unasked() {
    let who = Who::start().await;
    let proxy = FreezingProxy::start(SocketAddr::from(([127, 0, 0, 1], who.redis.port()))).await;
    let through = format!("redis://127.0.0.1:{}/", proxy.port());
    let one = Sharer::start(&who, &through, WriterId::random()).await;
    let other = Sharer::start(&who, &who.redis.url(), WriterId::random()).await;
    eventually("they know each other", async || one.metrics.limits.gateways.get() == 2).await;
    let chute = chute();
    let users: Vec<UserEntry> = (0..80).map(|_| limited(1_000_000, 20)).collect();
    let mut permits = Vec::new();
    for user in &users {
        for _ in 0..10 {
            permits.push(one.limits.take(user, &chute).await.unwrap());
        }
    }
    // What is shared is asked for again and again, so many limits at a time that one question is this large.
    proxy.break_at(4096);
    eventually("the connection breaks", async || proxy.has_broken()).await;
    drop(permits);
    for user in &users {
        let mut taken = Vec::new();
        eventually("the other gateway gets the places", async || {
            taken.extend(other.limits.take(user, &chute).await);
            taken.len() == 15
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_with_much_to_ask_is_heard_all_the_while() {
    let who = Who::start().await;
    let proxy = FreezingProxy::start(SocketAddr::from(([127, 0, 0, 1], who.redis.port()))).await;
    let through = format!("redis://127.0.0.1:{}/", proxy.port());
    let one = Sharer::start(&who, &through, WriterId::random()).await;
    let _other = Sharer::start(&who, &who.redis.url(), WriterId::random()).await;
    eventually("they know each other", async || one.metrics.limits.gateways.get() == 2).await;
    let chute = chute();
    let users: Vec<UserEntry> = (0..4000).map(|_| limited(1_000_000, 1000)).collect();
    let mut calls = JoinSet::new();
    for part in users.chunks(100) {
        let (limits, chute, part) = (Arc::clone(&one.limits), chute.clone(), part.to_vec());
        calls.spawn(async move {
            let mut permits = Vec::new();
            for user in &part {
                permits.push(limits.take(user, &chute).await.unwrap());
            }
            permits
        });
    }
    let permits = calls.join_all().await;
    // To ask for all of them, which is due twice a second, takes longer than a lease holds.
    proxy.slow_down(Duration::from_millis(50));
    let questions = one.metrics.limits.questions.with_label_values(&["answered"]);
    let (asked, began) = (questions.get(), Instant::now());
    while began.elapsed() < 4 * LIFETIME {
        assert_eq!(one.leases.moment().redis, Redis::There, "after {:?}", began.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(questions.get() - asked >= 30, "only {} questions", questions.get() - asked);
    drop(permits);
}
