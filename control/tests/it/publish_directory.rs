//! What gateways route by reaches Redis soon, only when it changed, and never goes back.

use std::sync::atomic::{AtomicBool, Ordering};

use chrono::TimeDelta;
use control::task::Task;
use control::task::publish_directory::PublishDirectory;
use protocol::directory::{Directory, Header};
use protocol::keys::Key;
use protocol::sealing::DirectoryKey;
use redis::Commands;
use serde_json::json;

use crate::redis_server::RedisServer;
use crate::world::{DIRECTORY_KEY, INSTANCE_KEY, PATIENCE, SOON, World, until};

fn read(redis: &RedisServer) -> Option<(Header, Directory)> {
    let text: Option<String> = redis.connection().get(Key::directory().as_str()).unwrap();
    text.map(|text| Directory::from_snapshot(&text).unwrap())
}

fn instances(redis: &RedisServer) -> Option<usize> {
    read(redis).map(|(_, directory)| directory.instance_count())
}

#[tokio::test]
async fn an_instance_comes_and_goes_within_a_second() {
    let redis = RedisServer::start();
    let mut world = World::new().await;
    world.publish(&redis);
    let chute = world.chute("org/model").await;
    until(PATIENCE, || read(&redis).is_some_and(|(_, directory)| directory.chutes.len() == 1)).await;
    let mut announced = redis.connection();
    let mut announced = announced.as_pubsub();
    announced.subscribe(Key::directory_changed().as_str()).unwrap();
    let made = world.instance(&chute, 9001).await;
    until(SOON, || instances(&redis) == Some(1)).await;
    let (header, directory) = read(&redis).unwrap();
    let version: u64 = announced.get_message().unwrap().get_payload().unwrap();
    assert_eq!(version, header.version);
    let instance = &directory.chutes[0].instances[0];
    assert_eq!(json!(instance.id), made["instance_id"]);
    let key = DirectoryKey::from_hex(DIRECTORY_KEY).unwrap();
    assert_eq!(key.open(&instance.key, instance.id, instance.version).unwrap().reveal_hex(), INSTANCE_KEY);
    world.run(&["instance", "remove", "--instance", made["instance_id"].as_str().unwrap()]).await;
    until(SOON, || instances(&redis) == Some(0)).await;
}

#[tokio::test]
async fn the_directory_says_what_the_operator_set() {
    let redis = RedisServer::start();
    let world = World::new().await;
    let chute = world.chute("org/model").await;
    let jon = world.run(&["user", "create", "--username", "jon"]).await;
    world.run(&["share", "add", "--chute", "chutes-org-model", "--user", "jon"]).await;
    world.run(&["alias", "set", "--alias", "gpt", "--name", "org/model"]).await;
    world.run(&["chute", "set", "--chute", "chutes-org-model", "--maintenance", "true", "--rate", "3"]).await;
    world.publish_directory(&redis).run(world.state.clock.now()).await.unwrap();
    let (_, directory) = read(&redis).unwrap();
    let published = &directory.chutes[0];
    assert_eq!(json!(published.id), chute["chute_id"]);
    assert_eq!(json!(published.shares), json!([jon["user_id"]]));
    assert_eq!((published.maintenance, published.rate_per_minute, published.concurrency), (true, Some(3), 8));
    assert_eq!(json!(published.price), json!({"input": 10, "output": 20}));
    assert_eq!(published.image_owner, published.owner);
    assert_eq!(json!(directory.official_users), json!([chute["user_id"]]));
    assert_eq!(json!(directory.aliases), json!({"gpt": "org/model"}));
}

#[tokio::test]
async fn an_unchanged_directory_is_not_published_again() {
    let redis = RedisServer::start();
    let world = World::new().await;
    let chute = world.chute("org/model").await;
    world.instance(&chute, 9001).await;
    let publisher = world.publish_directory(&redis);
    let now = world.state.clock.now();
    publisher.run(now).await.unwrap();
    let first = read(&redis).unwrap().0;
    publisher.run(now).await.unwrap();
    publisher.run(now + TimeDelta::hours(1)).await.unwrap();
    assert_eq!(read(&redis).unwrap().0, first);
}

#[tokio::test]
async fn only_active_and_verified_instances_of_living_accounts_are_published() {
    let redis = RedisServer::start();
    let world = World::new().await;
    let chute = world.chute("org/model").await;
    world.instance(&chute, 9001).await;
    let publisher = world.publish_directory(&redis);
    let now = world.state.clock.now();
    for (statement, expected) in [
        ("update instances set active = false", 0),
        ("update instances set active = true, verified = false", 0),
        ("update instances set verified = true", 1),
    ] {
        sqlx::query(statement).execute(&world.state.db).await.unwrap();
        publisher.run(now).await.unwrap();
        assert_eq!(instances(&redis), Some(expected), "{statement}");
    }
    world.run(&["user", "delete", "--user", "chutes"]).await;
    publisher.run(now).await.unwrap();
    assert_eq!(read(&redis).unwrap().1.chutes.len(), 0);
}

#[tokio::test]
async fn versions_grow_over_restarts_losses_and_a_newer_redis() {
    let redis = RedisServer::start();
    let world = World::new().await;
    world.chute("org/model").await;
    let now = world.state.clock.now();
    world.publish_directory(&redis).run(now).await.unwrap();
    let first = read(&redis).unwrap().0.version;
    redis::cmd("FLUSHALL").exec(&mut redis.connection()).unwrap();
    world.publish_directory(&redis).run(now).await.unwrap();
    let second = read(&redis).unwrap().0.version;
    assert!(second > first);
    let newer = Directory::default().to_snapshot(1_000, now, false);
    redis.connection().set::<_, _, ()>(Key::directory().as_str(), newer).unwrap();
    world.publish_directory(&redis).run(now).await.unwrap();
    let (header, directory) = read(&redis).unwrap();
    assert_eq!((header.version, directory.chutes.len()), (1_001, 1));
}

#[tokio::test]
async fn two_racing_publishers_end_with_the_newest_state_and_never_go_back() {
    let redis = RedisServer::start();
    let world = World::new().await;
    let chute = world.chute("org/model").await;
    let (first, second) = (world.publish_directory(&redis), world.publish_directory(&redis));
    let now = world.state.clock.now();
    first.run(now).await.unwrap();
    let done = AtomicBool::new(false);
    let race = async |publisher: &PublishDirectory| {
        while !done.load(Ordering::Relaxed) {
            publisher.run(now).await.unwrap();
        }
        publisher.run(now).await.unwrap();
    };
    let change = async {
        for port in 9001..9031 {
            world.instance(&chute, port).await;
        }
        done.store(true, Ordering::Relaxed);
    };
    let watch = async {
        let (mut version, mut count) = (0, 0);
        while !done.load(Ordering::Relaxed) {
            let (header, directory) = read(&redis).unwrap();
            assert!(header.version >= version && directory.instance_count() >= count);
            (version, count) = (header.version, directory.instance_count());
            tokio::task::yield_now().await;
        }
    };
    tokio::join!(race(&first), race(&second), change, watch);
    assert_eq!(instances(&redis), Some(30));
}

#[tokio::test]
async fn the_operator_insists_on_a_directory_for_a_minute() {
    let redis = RedisServer::start();
    let world = World::new().await;
    let publisher = world.publish_directory(&redis);
    let now = world.state.clock.now();
    publisher.run(now).await.unwrap();
    assert!(!read(&redis).unwrap().0.forced);
    world.run(&["directory", "force"]).await;
    publisher.run(now + TimeDelta::seconds(1)).await.unwrap();
    let forced = read(&redis).unwrap().0;
    assert!(forced.forced);
    publisher.run(now + TimeDelta::seconds(2)).await.unwrap();
    assert_eq!(read(&redis).unwrap().0, forced);
    publisher.run(now + TimeDelta::minutes(2)).await.unwrap();
    assert!(!read(&redis).unwrap().0.forced);
}

#[tokio::test]
async fn an_instance_whose_key_cannot_be_opened_is_left_out() {
    let redis = RedisServer::start();
    let world = World::new().await;
    let chute = world.chute("org/model").await;
    world.instance(&chute, 9001).await;
    world.instance(&chute, 9002).await;
    sqlx::query("update instances set version = 2 where port = 9001").execute(&world.state.db).await.unwrap();
    world.publish_directory(&redis).run(world.state.clock.now()).await.unwrap();
    let (_, directory) = read(&redis).unwrap();
    let ports: Vec<u16> = directory.chutes[0].instances.iter().map(|instance| instance.port).collect();
    assert_eq!(ports, [9002]);
}
