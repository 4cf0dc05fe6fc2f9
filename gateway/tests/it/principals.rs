//! What the gateway knows about callers follows what control publishes, whatever happens to Redis.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;
use gateway::principals::Unavailable;
use gateway::refusal::Refusal;
use protocol::credential::ApiKey;
use protocol::ids::{ApiKeyId, UserId};
use protocol::keys::Key;
use protocol::principal::UserEntry;
use tokio::task::JoinSet;

use crate::freezing_proxy::FreezingProxy;
use crate::redis_server::RedisServer;
use crate::who::{Who, entry, eventually, identify, overwrite, publish, user};

const REVOKED: Refusal = Refusal::InvalidCredential("the API key was revoked");
const UNKNOWN: Refusal = Refusal::InvalidCredential("unknown API key");

fn is_not_ready(result: &Result<gateway::auth::Caller, Refusal>) -> bool {
    matches!(result, Err(Refusal::NotReady(_)))
}

/// Uses a key until it is refused; the last moment at which a use began that was accepted.
async fn last_accepted(who: &Who, key: &ApiKey) -> Option<Instant> {
    let mut last = None;
    loop {
        let began_at = Instant::now();
        if who.identify(key).await.is_err() {
            return last;
        }
        last = Some(began_at);
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s17_a_revoked_key_is_refused_within_a_second_under_load() {
    let who = Who::start().await;
    let keys: Vec<ApiKey> = (0..100).map(|_| who.publish_caller()).collect();
    let is_over = Arc::new(AtomicBool::new(false));
    let mut load = JoinSet::new();
    for _ in 0..4 {
        let (auth, keys, is_over) = (Arc::clone(&who.auth), keys.clone(), Arc::clone(&is_over));
        load.spawn(async move {
            while !is_over.load(Ordering::Relaxed) {
                for key in &keys {
                    // Accepted before, refused after; what counts is asserted below.
                    let _ = identify(&auth, key).await;
                }
                tokio::task::yield_now().await;
            }
        });
    }
    for key in &keys {
        assert!(who.identify(key).await.is_ok());
    }
    for key in &keys {
        who.revoke(key, 2);
        let revoked_at = Instant::now();
        let last_accepted = last_accepted(&who, key).await;
        assert!(last_accepted < Some(revoked_at + Duration::from_secs(1)), "accepted a second after its revocation");
        assert_eq!(who.identify(key).await.err(), Some(REVOKED));
    }
    is_over.store(true, Ordering::Relaxed);
    load.join_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s17_a_revoked_key_is_refused_after_stale_after_when_redis_neither_answers_nor_closes() {
    let redis = RedisServer::start();
    let proxy = FreezingProxy::start(SocketAddr::from(([127, 0, 0, 1], redis.port()))).await;
    let url = format!("redis://127.0.0.1:{}/0?protocol=resp3", proxy.port());
    let who = Who::start_with(redis, &url, 2).await;
    let key = who.publish_caller();
    assert!(who.identify(&key).await.is_ok());
    proxy.freeze();
    let frozen_at = Instant::now();
    who.revoke(&key, 2);
    assert!(who.identify(&key).await.is_ok(), "it serves on at first");
    let last_accepted = last_accepted(&who, &key).await.expect("it was accepted after the freeze");
    assert!(last_accepted <= frozen_at + Duration::from_secs(2), "{:?}", last_accepted - frozen_at);
    assert!(is_not_ready(&who.identify(&key).await));
    proxy.thaw();
    eventually("the revocation is seen", async || who.identify(&key).await.err() == Some(REVOKED)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s17_a_key_revoked_while_the_connection_was_lost_is_refused_once_it_is_back() {
    let redis = RedisServer::start();
    let proxy = FreezingProxy::start(SocketAddr::from(([127, 0, 0, 1], redis.port()))).await;
    let url = format!("redis://127.0.0.1:{}/0?protocol=resp3", proxy.port());
    let who = Who::start_with(redis, &url, 30).await;
    let key = who.publish_caller();
    eventually("the key is held", async || {
        who.identify(&key).await.is_ok() && who.metrics.who.principals_held.get() == 2
    })
    .await;
    proxy.freeze();
    who.revoke(&key, 2);
    eventually("the loss is noticed", async || who.metrics.redis.principals.get() == 0).await;
    assert!(who.identify(&key).await.is_ok(), "it serves on");
    proxy.thaw();
    eventually("redis is followed again", async || who.metrics.redis.principals.get() == 1).await;
    assert_eq!(who.identify(&key).await.err(), Some(REVOKED));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reading_that_races_with_a_change_never_leaves_the_old_value() {
    let who = Who::start().await;
    let user = user();
    let key = Key::user(user.id);
    let is_over = Arc::new(AtomicBool::new(false));
    let mut readers = JoinSet::new();
    for _ in 0..2 {
        let (principals, id, is_over) = (Arc::clone(&who.principals), user.id, Arc::clone(&is_over));
        readers.spawn(async move {
            let mut last = 0;
            while !is_over.load(Ordering::Relaxed) {
                let seen = principals.user(id).await.unwrap().and_then(|user| user.rate_per_minute).unwrap_or(0);
                assert!(seen >= last, "went back from {last} to {seen}");
                last = seen;
                tokio::task::yield_now().await;
            }
        });
    }
    let mut connection = who.redis.connection();
    for version in 1..=1_000_u32 {
        let entry = UserEntry { rate_per_minute: Some(version), ..user.clone() };
        publish(&mut connection, &key, u64::from(version), &entry);
        let published_at = Instant::now();
        loop {
            let held = who.principals.user(user.id).await.unwrap();
            if held.is_some_and(|held| held.rate_per_minute == Some(version)) {
                break;
            }
            assert!(published_at.elapsed() < Duration::from_secs(1), "version {version} is not seen");
            tokio::task::yield_now().await;
        }
    }
    is_over.store(true, Ordering::Relaxed);
    readers.join_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s17_a_revoked_key_stays_refused_when_redis_is_flushed_and_control_is_asked() {
    let who = Who::start().await;
    let (revoked, good, unknown) = (who.publish_caller(), who.publish_caller(), ApiKey::generate(UserId::random()));
    who.publish_complete(1, 2, 2);
    who.revoke(&revoked, 2);
    assert_eq!(who.identify(&revoked).await.err(), Some(REVOKED));
    let good_user = who.identify(&good).await.unwrap().user;
    assert_eq!(who.identify(&unknown).await.err(), Some(UNKNOWN));
    assert_eq!(who.control.questions(), 0);
    who.control.knows(&Key::api_key(revoked.id()), 2, &entry(&revoked, true));
    who.control.knows(&Key::api_key(good.id()), 1, &entry(&good, false));
    who.control.knows(&Key::user(good_user.id), 1, &*good_user);
    redis::cmd("FLUSHALL").exec(&mut who.redis.connection()).unwrap();
    let after_flush = join_all((0..50).map(async |_| who.identify(&revoked).await.err() == Some(REVOKED))).await;
    assert_eq!(after_flush, [true; 50]);
    eventually("control was asked", async || {
        assert_eq!(who.identify(&revoked).await.err(), Some(REVOKED));
        assert!(who.identify(&good).await.is_ok());
        assert_eq!(who.identify(&unknown).await.err(), Some(UNKNOWN));
        who.control.questions() >= 4
    })
    .await;
    assert_eq!(who.metrics.who.principals_looked_up.get(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_version_never_replaces_a_newer_one() {
    let who = Who::start().await;
    let key = who.publish_caller();
    who.revoke(&key, 5);
    assert_eq!(who.identify(&key).await.err(), Some(REVOKED));
    overwrite(&mut who.redis.connection(), &Key::api_key(key.id()), 4, entry(&key, false));
    // A change of a second key that is seen shows that the first one has been announced too.
    let later = who.publish_caller();
    assert!(who.identify(&later).await.is_ok());
    who.revoke(&later, 2);
    eventually("the later change is seen", async || who.identify(&later).await.is_err()).await;
    assert_eq!(who.identify(&key).await.err(), Some(REVOKED));
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_are_served_until_stale_after_when_redis_is_lost_and_control_cannot_answer() {
    let redis = RedisServer::start();
    let url = redis.url();
    let mut who = Who::start_with(redis, &url, 3).await;
    let key = who.publish_caller();
    who.publish_complete(1, 1, 1);
    assert!(who.identify(&key).await.is_ok());
    who.control.fails();
    who.redis.kill();
    let killed_at = Instant::now();
    assert!(who.identify(&key).await.is_ok());
    who.redis.restart();
    eventually("the empty redis is followed", async || who.metrics.redis.principals.get() == 1).await;
    let last_accepted = last_accepted(&who, &key).await;
    assert!(last_accepted <= Some(killed_at + Duration::from_secs(3)), "{last_accepted:?}");
    assert!(is_not_ready(&who.identify(&key).await));
    let again = who.publish_caller();
    eventually("principals published again are known", async || who.identify(&again).await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_that_lost_more_than_half_is_refused_and_control_asked_instead() {
    let who = Who::start().await;
    let unknown = || who.principals.key(ApiKeyId::random());
    who.publish_complete(1, 10, 10);
    assert_eq!(unknown().await, Ok(None));
    assert_eq!(who.control.questions(), 0);
    who.publish_complete(2, 4, 10);
    assert_eq!(unknown().await, Ok(None));
    assert_eq!(unknown().await, Ok(None));
    assert_eq!((who.control.questions(), who.metrics.who.principals_refused.get()), (2, 1));
    who.control.fails();
    assert_eq!(unknown().await, Err(Unavailable));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_question_serves_all_who_wait_for_it_and_its_absence_is_remembered() {
    let who = Who::start().await;
    let unknown = ApiKeyId::random();
    let answers = join_all((0..200).map(|_| who.principals.key(unknown))).await;
    assert!(answers.iter().all(|answer| *answer == Ok(None)));
    assert_eq!(who.principals.key(unknown).await, Ok(None));
    assert_eq!(who.control.questions(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_key_is_accepted_at_once_although_its_absence_was_remembered() {
    let who = Who::start().await;
    who.publish_complete(1, 1, 1);
    let user = user();
    let key = ApiKey::generate(user.id);
    who.publish(&Key::user(user.id), 1, &user);
    assert_eq!(who.identify(&key).await.err(), Some(UNKNOWN));
    who.publish(&Key::api_key(key.id()), 1, &entry(&key, false));
    let published_at = Instant::now();
    eventually("the key is accepted", async || who.identify(&key).await.is_ok()).await;
    assert!(published_at.elapsed() < Duration::from_secs(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_user_is_refused() {
    let who = Who::start().await;
    let key = who.publish_caller();
    let user = who.identify(&key).await.unwrap().user;
    who.publish(&Key::user(user.id), 2, &UserEntry { deleted: true, ..(*user).clone() });
    eventually("the user is gone", async || who.identify(&key).await.is_err()).await;
}
