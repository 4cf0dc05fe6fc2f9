//! What several gateways let in together while Redis is there.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;
use gateway::refusal::Refusal;
use protocol::directory::Directory;
use protocol::ids::{ChuteId, InstanceId, WriterId};
use protocol::keys::Key;
use protocol::load::{ChuteLoad, Load};
use protocol::principal::{Bucket, FundsEntry, UserEntry};
use redis::Commands;
use tokio::task::JoinSet;

use super::{Sharer, chute, let_in, limited};
use crate::client::{Raw, chat, content, request};
use crate::instance::{Act, Scripted};
use crate::platform::{Platform, Wishes};
use crate::redis_server::RedisServer;
use crate::who::{Who, eventually, user};

#[tokio::test(flavor = "multi_thread")]
async fn gateways_let_in_exactly_the_limit_together() {
    let who = Who::start().await;
    let sharers = Sharer::several(&who, 4).await;
    let (user, chute) = (limited(200, 1000), chute());
    let mut calling = JoinSet::new();
    for sharer in &sharers {
        let (sharer, user, chute) = (Arc::clone(sharer), user.clone(), chute.clone());
        calling.spawn(async move { let_in(&sharer, &user, &chute, 300).await });
    }
    let mut passed: usize = calling.join_all().await.into_iter().sum();
    eventually("nothing of the limit is kept back", async || {
        passed += let_in(&sharers[0], &user, &chute, 1).await;
        assert!(passed <= 200, "{passed} passed");
        passed == 200
    })
    .await;
    for sharer in &sharers {
        assert_eq!(let_in(sharer, &user, &chute, 50).await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_at_once_stay_within_the_limit_over_all_gateways() {
    let who = Who::start().await;
    let sharers = Sharer::several(&who, 4).await;
    let (user, chute) = (limited(1_000_000, 9), chute());
    let (in_flight, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut calling = JoinSet::new();
    for number in 0..16 {
        let (sharer, user, chute) = (Arc::clone(&sharers[number % 4]), user.clone(), chute.clone());
        let (in_flight, most) = (Arc::clone(&in_flight), Arc::clone(&most));
        calling.spawn(async move {
            let mut passed = 0;
            for _ in 0..60 {
                if let Ok(_permit) = sharer.limits.take(&user, &chute).await {
                    let now = in_flight.fetch_add(1, Ordering::SeqCst) + 1;
                    most.fetch_max(now, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    in_flight.fetch_sub(1, Ordering::SeqCst);
                    passed += 1;
                } else {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
            passed
        });
    }
    let passed: usize = calling.join_all().await.into_iter().sum();
    assert!(most.load(Ordering::SeqCst) <= 9, "{} at once", most.load(Ordering::SeqCst));
    assert!(passed > 60, "{passed} calls were let in");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_takes_one_call_is_shared_by_four_gateways() {
    let who = Who::start().await;
    let sharers = Sharer::several(&who, 4).await;
    let (instance, in_flight) = (InstanceId::random(), AtomicUsize::new(0));
    let turns = sharers.iter().map(async |sharer| {
        let mut turns = 0;
        eventually("each gateway gets its turns", async || {
            if let Some(_slot) = sharer.instances.take(instance, 1).await {
                assert_eq!(in_flight.fetch_add(1, Ordering::SeqCst), 0, "two calls at once");
                tokio::task::yield_now().await;
                in_flight.fetch_sub(1, Ordering::SeqCst);
                turns += 1;
            }
            turns == 5
        })
        .await;
    });
    join_all(turns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_allowance_is_shared_and_what_control_counted_counts_once() {
    let who = Who::start().await;
    who.publish_complete(1, 1, 1);
    let sharers = Sharer::several(&who, 2).await;
    let user = UserEntry { quotas: [(Bucket::Default, 40)].into(), ..user() };
    let now = gateway::clock::Clock::default().now();
    let mut passed = 0;
    for turn in 0..60 {
        match sharers[turn % 2].quota.check(&user, ChuteId::random(), now).await {
            Ok(hold) => {
                passed += 1;
                hold.unwrap().counted(turn as u64);
            }
            Err(Refusal::QuotaExceeded { .. }) => {}
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!((30..=40).contains(&passed), "{passed} passed");
    // Control has counted all of them, under marks of writers that are not these: nothing more is free for them.
    let funds =
        FundsEntry { balance: 0, day: now.date_naive(), used: [(Bucket::Default, 40)].into(), marks: [].into() };
    who.publish(&Key::funds(user.id), 1, &funds);
    for sharer in &sharers {
        eventually("it is used up", async || sharer.quota.check(&user, ChuteId::random(), now).await.is_err()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_stops_gives_back_what_it_kept_ready() {
    let who = Who::start().await;
    let sharers = Sharer::several(&who, 2).await;
    let (user, chute) = (limited(100, 1000), chute());
    assert_eq!(let_in(&sharers[0], &user, &chute, 30).await, 30);
    sharers[0].stop().await;
    let mut passed = 0;
    eventually("the rest is let in elsewhere", async || {
        passed += let_in(&sharers[1], &user, &chute, 1).await;
        passed == 70
    })
    .await;
    assert_eq!(let_in(&sharers[1], &user, &chute, 30).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_calls_in_flight_of_a_dead_gateway_are_forgotten() {
    let who = Who::start().await;
    let mut dying = Sharer::start(&who, &who.redis.url(), WriterId::random()).await;
    let living = Sharer::start(&who, &who.redis.url(), WriterId::random()).await;
    let (user, chute) = (limited(1000, 2), chute());
    let _permits = [dying.limits.take(&user, &chute).await.unwrap(), dying.limits.take(&user, &chute).await.unwrap()];
    assert!(matches!(living.limits.take(&user, &chute).await.err(), Some(Refusal::TooManyAtOnce { .. })));
    dying.kill();
    eventually("its slots are free", async || living.limits.take(&user, &chute).await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_gateway_hears_what_the_others_have_to_do() {
    let mut who = Who::start().await;
    let sharers = Sharer::several(&who, 3).await;
    let (chute, instance) = (ChuteId::random(), InstanceId::random());
    let attempts = [sharers[0].loads.enter(chute, instance), sharers[1].loads.enter(chute, instance)];
    let (first, third) = (&sharers[0].loads, &sharers[2].loads);
    eventually("two attempts are heard of", async || third.elsewhere(instance) == 2).await;
    eventually("its own do not count", async || first.elsewhere(instance) == 1).await;
    let keys: Vec<String> = redis::cmd("KEYS").arg("load:*").query(&mut who.redis.connection()).unwrap();
    assert_eq!(keys.len(), 3);
    let text: String = redis::cmd("GET").arg(&keys[0]).query(&mut who.redis.connection()).unwrap();
    assert!(serde_json::from_str::<Load>(&text).is_ok());
    drop(attempts);
    eventually("they have ended", async || third.elsewhere(instance) == 0).await;
    let _attempt = sharers[0].loads.enter(chute, instance);
    eventually("another is heard of", async || third.elsewhere(instance) == 1).await;
    who.redis.kill();
    eventually("what is old is not believed", async || third.elsewhere(instance) == 0).await;
}

/// What a gateway has told last.
fn told(redis: &RedisServer, gateway: WriterId) -> Option<Load> {
    let text: Option<String> = redis.connection().get(Key::load(gateway).as_str()).unwrap();
    text.map(|text| serde_json::from_str(&text).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_gateway_has_to_do_is_told_four_times_a_second() {
    const CHANGES: u32 = 9;
    let (who, gateway) = (Who::start().await, WriterId::random());
    let sharer = Sharer::start(&who, &who.redis.url(), gateway).await;
    let (chute, instance) = (ChuteId::random(), InstanceId::random());
    let (mut attempts, mut took) = (Vec::new(), Vec::new());
    for number in 1..=CHANGES {
        // The change before has just been told of, so that this one waits for as long as any.
        let begun = Instant::now();
        attempts.push(sharer.loads.enter(chute, instance));
        let in_flight = [(instance, number)].into();
        let expected = Some(Load { chutes: [(chute, ChuteLoad { in_flight, ..ChuteLoad::default() })].into() });
        eventually("the change is told of", async || told(&who.redis, gateway) == expected).await;
        took.push(begun.elapsed());
    }
    // Most of them: a machine that does something else too may be late now and then.
    took.sort_unstable();
    assert!(took[took.len() / 2] <= Duration::from_millis(500), "{took:?}");
}

#[tokio::test]
async fn a_call_that_finds_every_instance_full_is_told_of_as_limited() {
    let instance = Scripted::start([Act::Stall(vec![content("one")])]).await;
    let narrow: fn(&mut Directory) = |directory| directory.chutes.iter_mut().for_each(|chute| chute.concurrency = 1);
    let platform = Platform::start(&[&instance], Wishes { directory: Some(narrow), ..Wishes::default() }).await;
    let call = request(&platform, "POST", "llm-chute", "/v1/chat/completions", &chat(true));
    let mut raw = [Raw::connect(&platform).await, Raw::connect(&platform).await];
    raw[0].send(&call).await;
    raw[0].read_until("one").await;
    raw[1].send(&call).await;
    let got = raw[1].answer().await;
    assert_eq!((got.status, got.json()["error"]["code"].as_str()), (429, Some("at_capacity")));
    let mut redis = platform.redis.connection();
    eventually("one call is limited beside the one in flight", async || {
        let keys: Vec<String> = redis.keys("load:*").unwrap();
        let Some(of_the_only_gateway) = keys.first() else { return false };
        let text: String = redis.get(of_the_only_gateway).unwrap();
        let load: Load = serde_json::from_str(&text).unwrap();
        let chute = load.chutes.get(&platform.llm).cloned().unwrap_or_default();
        (chute.limited, chute.in_flight.values().sum::<u32>()) == (1, 1)
    })
    .await;
}
