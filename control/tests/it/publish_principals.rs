//! What gateways know of callers reaches Redis soon, whole, and never goes back.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use control::db::outbox::Change;
use control::db::principals;
use control::task::Task;
use control::task::publish_principals::PublishPrincipals;
use protocol::ids::UserId;
use protocol::keys::Key;
use protocol::principal::{Complete, FundsEntry, HotkeyEntry, KeyEntry, UserEntry, Versioned};
use protocol::signing::Hotkey;
use redis::Commands;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::redis_server::RedisServer;
use crate::world::{ALICE, PATIENCE, SOON, World, board, until};

/// What Redis holds, without an error while Redis is away.
fn read<T: Serialize + DeserializeOwned>(redis: &RedisServer, key: &Key) -> Option<Versioned<T>> {
    let fields: HashMap<String, String> = redis.connection().hgetall(key.as_str()).unwrap();
    Versioned::from_fields(&fields).unwrap()
}

fn complete(redis: &RedisServer) -> Option<Complete> {
    read(redis, &Key::principals_complete()).map(|versioned: Versioned<Complete>| versioned.entry)
}

async fn user(world: &World, name: &str) -> UserId {
    world.run(&["user", "create", "--username", name]).await["user_id"].as_str().unwrap().parse().unwrap()
}

async fn key(world: &World, user: &str) -> (String, Key) {
    let made = world.run(&["key", "create", "--user", user, "--admin"]).await;
    let id = made["api_key_id"].as_str().unwrap().to_owned();
    let key = Key::api_key(id.parse().unwrap());
    (id, key)
}

#[tokio::test]
async fn a_revocation_is_in_redis_within_a_second() {
    let redis = RedisServer::start();
    let mut world = World::new().await;
    world.publish(&redis);
    user(&world, "jon").await;
    let (id, key) = key(&world, "jon").await;
    until(PATIENCE, || read::<KeyEntry>(&redis, &key).is_some_and(|key| !key.entry.revoked)).await;
    world.run(&["key", "revoke", "--key", &id]).await;
    until(SOON, || read::<KeyEntry>(&redis, &key).unwrap().entry.revoked).await;
}

#[tokio::test]
async fn each_kind_of_principal_is_published_with_what_was_set() {
    let redis = RedisServer::start();
    let mut world = World::new().await;
    world.publish(&redis);
    let made = world.run(&["user", "create", "--username", "jon", "--hotkey", ALICE]).await;
    let id: UserId = made["user_id"].as_str().unwrap().parse().unwrap();
    world.run(&["quota", "set", "--user", "jon", "--calls", "3"]).await;
    world.run(&["balance", "set", "--user", "jon", "--usd", "-1.5"]).await;
    let user = || read::<UserEntry>(&redis, &Key::user(id)).map(|user| user.entry);
    let funds = || read::<FundsEntry>(&redis, &Key::funds(id)).map(|funds| funds.entry);
    until(PATIENCE, || user().is_some_and(|user| user.quotas.values().eq(&[3]))).await;
    until(PATIENCE, || funds().is_some_and(|funds| funds.balance == -1_500_000_000_000)).await;
    let hotkey = || read::<HotkeyEntry>(&redis, &Key::hotkey(&Hotkey::parse(ALICE).unwrap()));
    until(PATIENCE, || hotkey().is_some_and(|hotkey| hotkey.entry.user == Some(id))).await;
    until(PATIENCE, || complete(&redis) == Some(Complete { users: 1, keys: 0, forced: false })).await;
}

#[tokio::test]
async fn an_emptied_redis_gets_everything_again() {
    let redis = RedisServer::start();
    let mut world = World::new().await;
    world.publish(&redis);
    let (jon, eve) = (user(&world, "jon").await, user(&world, "eve").await);
    let (id, key) = key(&world, "eve").await;
    world.run(&["key", "revoke", "--key", &id]).await;
    world.run(&["user", "delete", "--user", "jon"]).await;
    let whole = Some(Complete { users: 2, keys: 1, forced: false });
    until(PATIENCE, || complete(&redis) == whole).await;
    redis::cmd("FLUSHALL").exec(&mut redis.connection()).unwrap();
    until(PATIENCE, || complete(&redis) == whole).await;
    assert!(read::<UserEntry>(&redis, &Key::user(jon)).unwrap().entry.deleted);
    assert!(!read::<UserEntry>(&redis, &Key::user(eve)).unwrap().entry.deleted);
    assert!(read::<FundsEntry>(&redis, &Key::funds(eve)).is_some());
    assert!(read::<KeyEntry>(&redis, &key).unwrap().entry.revoked);
}

#[tokio::test]
async fn a_redis_emptied_while_it_is_filled_is_not_called_complete() {
    let redis = RedisServer::start();
    let board = board(&redis);
    let statement = Versioned { version: 1, entry: Complete { users: 1, keys: 1, forced: false } };
    board.begin_filling("mine").await.unwrap();
    redis::cmd("FLUSHALL").exec(&mut redis.connection()).unwrap();
    assert!(!board.finish_filling("mine", &statement).await.unwrap());
    assert!(!board.amend_complete(&statement).await.unwrap());
    assert_eq!(complete(&redis), None);
    board.begin_filling("mine").await.unwrap();
    board.begin_filling("another's").await.unwrap();
    assert!(!board.finish_filling("mine", &statement).await.unwrap());
    assert!(board.finish_filling("another's", &statement).await.unwrap());
    assert_eq!(complete(&redis), Some(statement.entry));
}

#[tokio::test]
async fn a_redis_that_comes_back_with_old_data_is_corrected() {
    let mut redis = RedisServer::start();
    let mut world = World::new().await;
    world.publish(&redis);
    user(&world, "jon").await;
    let (id, key) = key(&world, "jon").await;
    until(PATIENCE, || read::<KeyEntry>(&redis, &key).is_some()).await;
    until(PATIENCE, || complete(&redis).is_some_and(|complete| complete.keys == 1)).await;
    redis::cmd("SAVE").exec(&mut redis.connection()).unwrap();
    world.run(&["key", "revoke", "--key", &id]).await;
    until(PATIENCE, || read::<KeyEntry>(&redis, &key).unwrap().entry.revoked).await;
    redis.kill();
    redis.restart();
    until(PATIENCE, || read::<KeyEntry>(&redis, &key).is_some_and(|key| key.entry.revoked)).await;
}

#[tokio::test]
async fn changes_made_while_redis_is_away_arrive_when_it_is_back() {
    let mut redis = RedisServer::start();
    let mut world = World::new().await;
    world.publish(&redis);
    let jon = user(&world, "jon").await;
    until(PATIENCE, || complete(&redis).is_some()).await;
    redis.kill();
    world.run(&["user", "set", "--user", "jon", "--rate", "77"]).await;
    redis.restart();
    let rate = || read::<UserEntry>(&redis, &Key::user(jon)).and_then(|user| user.entry.rate_per_minute);
    until(PATIENCE, || rate() == Some(77)).await;
}

#[tokio::test]
async fn versions_never_go_back_though_two_publishers_race() {
    let redis = RedisServer::start();
    let world = World::new().await;
    let jon = user(&world, "jon").await;
    let (first, second) = (world.publish_principals(&redis), world.publish_principals(&redis));
    let now = world.state.clock.now();
    first.run(now).await.unwrap();
    let version = || read::<UserEntry>(&redis, &Key::user(jon)).unwrap().version;
    let before = version();
    world.run(&["user", "set", "--user", "jon", "--rate", "1000"]).await;
    first.run(now).await.unwrap();
    let one_change = version() - before;
    let done = AtomicBool::new(false);
    let race = async |publisher: &PublishPrincipals| {
        while !done.load(Ordering::Relaxed) {
            publisher.run(now).await.unwrap();
        }
        publisher.run(now).await.unwrap();
    };
    let change = async {
        for rate in 1..=100 {
            world.run(&["user", "set", "--user", "jon", "--rate", &rate.to_string()]).await;
        }
        done.store(true, Ordering::Relaxed);
    };
    let watch = async {
        let mut seen = 0;
        while !done.load(Ordering::Relaxed) {
            let held = read::<UserEntry>(&redis, &Key::user(jon)).unwrap();
            assert!(held.version >= seen, "{} after {seen}", held.version);
            seen = held.version;
            tokio::task::yield_now().await;
        }
    };
    tokio::join!(race(&first), race(&second), change, watch);
    let after = read::<UserEntry>(&redis, &Key::user(jon)).unwrap();
    assert_eq!(after.entry.rate_per_minute, Some(100));
    assert_eq!(after.version, before + 101 * one_change, "a publisher that was merely slower raised the version");
}

#[tokio::test]
async fn changes_made_after_postgres_was_set_back_reach_redis() {
    let redis = RedisServer::start();
    let world = World::new().await;
    let (publisher, now) = (world.publish_principals(&redis), world.state.clock.now());
    let made = world.run(&["user", "create", "--username", "jon", "--hotkey", ALICE]).await;
    let jon: UserId = made["user_id"].as_str().unwrap().parse().unwrap();
    let (id, key) = key(&world, "jon").await;
    publisher.run(now).await.unwrap();
    let (user, funds) = (Key::user(jon), Key::funds(jon));
    let hotkey = Key::hotkey(&Hotkey::parse(ALICE).unwrap());
    // What Redis holds comes from a later time than what Postgres holds.
    for ahead in [&user, &funds, &key, &hotkey, &Key::principals_complete()] {
        redis.connection().hset::<_, _, _, ()>(ahead.as_str(), "v", 1000).unwrap();
    }
    world.run(&["balance", "set", "--user", "jon", "--usd", "2"]).await;
    world.run(&["key", "revoke", "--key", &id]).await;
    world.run(&["user", "delete", "--user", "jon"]).await;
    publisher.run(now).await.unwrap();
    let user = read::<UserEntry>(&redis, &user).unwrap();
    assert!(user.version > 1000 && user.entry.deleted);
    let funds = read::<FundsEntry>(&redis, &funds).unwrap();
    assert!(funds.version > 1000 && funds.entry.balance == 2_000_000_000_000);
    let key = read::<KeyEntry>(&redis, &key).unwrap();
    assert!(key.version > 1000 && key.entry.revoked);
    let hotkey = read::<HotkeyEntry>(&redis, &hotkey).unwrap();
    assert!(hotkey.version > 1000 && hotkey.entry.user.is_none());
    let whole: Versioned<Complete> = read(&redis, &Key::principals_complete()).unwrap();
    assert!(whole.version > 1000);
    self::user(&world, "eve").await;
    publisher.run(now).await.unwrap();
    assert_eq!(complete(&redis), Some(Complete { users: 2, keys: 1, forced: false }));
}

#[tokio::test]
async fn a_row_that_is_not_older_than_redis_keeps_its_version() {
    let world = World::new().await;
    let jon = Change::User(user(&world, "jon").await);
    let now = world.state.clock.now();
    let version = async || principals::find(&world.state.db, &jon, now).await.unwrap().unwrap().version;
    let first = version().await;
    assert!(!principals::raise(&world.state.db, &jon, first).await.unwrap());
    assert_eq!(version().await, first);
    assert!(principals::raise(&world.state.db, &jon, first + 5).await.unwrap());
    assert_eq!(version().await, first + 6);
}

#[tokio::test]
async fn the_operator_has_all_principals_published_anew() {
    let redis = RedisServer::start();
    let mut world = World::new().await;
    world.publish(&redis);
    let jon = user(&world, "jon").await;
    until(PATIENCE, || complete(&redis).is_some_and(|complete| complete.users == 1)).await;
    redis.connection().del::<_, ()>(Key::user(jon).as_str()).unwrap();
    world.run(&["principals", "force"]).await;
    until(PATIENCE, || complete(&redis) == Some(Complete { users: 1, keys: 0, forced: true })).await;
    assert!(read::<UserEntry>(&redis, &Key::user(jon)).is_some());
    let later = world.state.clock.now() + chrono::TimeDelta::minutes(2);
    world.publish_principals(&redis).run(later).await.unwrap();
    until(PATIENCE, || complete(&redis).is_some()).await;
}
