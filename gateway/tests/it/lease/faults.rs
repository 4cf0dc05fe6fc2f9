//! What gateways let in when Redis is away, empty, or answers with errors.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use gateway::refusal::Refusal;
use protocol::ids::{ChuteId, WriterId};
use protocol::keys::Key;
use protocol::principal::{Bucket, FundsEntry, UserEntry};

use super::{Sharer, chute, let_in, limited};
use crate::freezing_proxy::FreezingProxy;
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
    let now = gateway::clock::Clock::default().now();
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

/// How Redis is made to answer with an error, and how that ends.
const ERRORS: [(&str, &[&str], &[&str]); 3] = [
    ("OOM", &["CONFIG", "SET", "maxmemory", "1"], &["CONFIG", "SET", "maxmemory", "0"]),
    ("READONLY", &["REPLICAOF", "127.0.0.1", "9"], &["REPLICAOF", "NO", "ONE"]),
    ("NOPERM", &["ACL", "SETUSER", "default", "-evalsha", "-eval"], &["ACL", "SETUSER", "default", "+@all"]),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_answers_with_errors_counts_as_away_until_it_does_not() {
    let who = Who::start().await;
    let sharers = Sharer::several(&who, 2).await;
    let chute = chute();
    for (name, begin, end) in ERRORS {
        let command = |words: &[&str]| {
            redis::cmd(words[0]).arg(&words[1..]).exec(&mut who.redis.connection()).unwrap();
        };
        command(begin);
        for sharer in &sharers {
            sharer.is_alone().await;
            assert_eq!(let_in(sharer, &limited(20, 1000), &chute, 50).await, 10, "{name}");
        }
        command(end);
        for sharer in &sharers {
            sharer.shares().await;
            assert_eq!(let_in(sharer, &limited(20, 1000), &chute, 50).await, 20, "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_silent_or_busy_counts_as_away_until_it_is_not() {
    let who = Who::start().await;
    let sharer = Sharer::start(&who, &who.redis.url(), WriterId::random()).await;
    let chute = chute();
    who.redis.freeze();
    // A call that has to ask waits for the lease to end, and is then let in by the share.
    let began = Instant::now();
    assert_eq!(let_in(&sharer, &limited(20, 1000), &chute, 50).await, 20);
    assert!(began.elapsed() < Duration::from_secs(10), "calls hung for {:?}", began.elapsed());
    sharer.is_alone().await;
    who.redis.thaw();
    sharer.shares().await;
    assert_eq!(let_in(&sharer, &limited(20, 1000), &chute, 50).await, 20);

    redis::cmd("CONFIG").arg("SET").arg("busy-reply-threshold").arg(20).exec(&mut who.redis.connection()).unwrap();
    let mut connection = who.redis.connection();
    let endless = tokio::task::spawn_blocking(move || {
        // Ends when it is killed, with an error.
        let _ = redis::cmd("EVAL").arg("while true do end").arg(0).exec(&mut connection);
    });
    sharer.is_alone().await;
    eventually("the script is killed", async || {
        let client = redis::Client::open(who.redis.url()).unwrap();
        let connection = client.get_connection_with_timeout(Duration::from_secs(1));
        connection.is_ok_and(|mut connection| redis::cmd("SCRIPT").arg("KILL").exec(&mut connection).is_ok())
    })
    .await;
    endless.await.unwrap();
    sharer.shares().await;
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
