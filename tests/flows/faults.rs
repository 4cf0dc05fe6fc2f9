//! Whatever dies under load, each call is counted once: by clients, in Postgres and in the export.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use stack::miner::{Behaviour, Engine};
use stack::proof::Size;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::books;
use crate::load::{self, End, Load, Seen};
use crate::scene::{Scene, User};

const SEED: u64 = 64;
const CLIENTS: u64 = 6;
const LONGEST: Duration = Duration::from_secs(30);
/// Hours that two workers race for.
const HOURS: i64 = 6;

/// A platform and somebody who calls it without limits.
async fn scene() -> (Scene, User) {
    let mut scene = Scene::start().await;
    let user = scene.unlimited_user("load", &[]).await;
    for gateway in 0..scene.gateways() {
        wait_until_known(&scene, gateway, &user).await;
    }
    (scene, user)
}

/// Until a gateway knows a new key: then a model that nobody has is what it misses, and no call is recorded.
async fn wait_until_known(scene: &Scene, gateway: usize, user: &User) {
    let deadline = Instant::now() + LONGEST;
    let (web, url) = (scene.client(), scene.url_at("llm", gateway));
    while load::ask(&web, &url, &user.key, "nobody/nothing", 1).await.end != End::Refused(404) {
        assert!(Instant::now() < deadline, "gateway {gateway} does not know the user");
        sleep(Duration::from_millis(50)).await;
    }
}

fn show(what: &str, seen: &[Seen]) {
    let mut ends: BTreeMap<String, usize> = BTreeMap::new();
    for call in seen {
        let code = call.code.as_deref().unwrap_or_default();
        *ends.entry(format!("{:?} {code}", call.end)).or_default() += 1;
    }
    let tokens: u64 = seen.iter().map(|call| call.tokens).sum();
    stack::screen::say(&format!("{what}: {} calls, {tokens} tokens, {ends:?}", seen.len()));
}

#[tokio::test]
async fn a_gateway_killed_in_the_middle_of_streams_loses_nothing() {
    let (mut scene, user) = scene().await;
    let slow = Behaviour { tokens_per_second: 50.0, ..Behaviour::default() };
    scene.behave(Engine::Vllm, &slow).await;
    let mut seen = Vec::new();
    for _ in 0..Size::asked().pick(1, 10) {
        let mut streams = JoinSet::new();
        for _ in 0..CLIENTS {
            let (web, url, key) = (scene.client(), scene.url_at("llm", 0), user.key.clone());
            let model = scene.sample(Engine::Vllm).model.clone();
            streams.spawn(async move { load::ask(&web, &url, &key, &model, 400).await });
        }
        sleep(Duration::from_secs(2)).await;
        scene.platform.gateways[0].kill().unwrap();
        seen.extend(streams.join_all().await);
        scene.platform.gateways[0].start_again(&scene.platform.spawner).await.unwrap();
    }
    show("gateway killed", &seen);
    assert!(seen.iter().all(|call| call.end == End::Cut && call.tokens > 0), "{seen:?}");
    books::balance(&mut scene, &user, &seen).await;
}

#[tokio::test]
async fn a_redis_that_stands_still_under_load_loses_nothing() {
    let (mut scene, user) = scene().await;
    let load = Load::start(&scene, &user, CLIENTS, SEED);
    sleep(Duration::from_secs(2)).await;
    scene.platform.redis.process().freeze().unwrap();
    sleep(Duration::from_secs(Size::asked().pick(5, 60))).await;
    scene.platform.redis.process().thaw().unwrap();
    sleep(Duration::from_secs(2)).await;
    let seen = load.stop().await;
    show("redis stopped", &seen);
    books::balance(&mut scene, &user, &seen).await;
}

#[tokio::test]
async fn a_redis_that_comes_back_empty_is_filled_again_and_nothing_is_lost() {
    let (mut scene, user) = scene().await;
    let load = Load::start(&scene, &user, CLIENTS, SEED + 1);
    for _ in 0..Size::asked().pick(1, 5) {
        sleep(Duration::from_secs(2)).await;
        scene.platform.redis.replace_by_empty(&scene.platform.spawner).await.unwrap();
    }
    sleep(Duration::from_secs(3)).await;
    let seen = load.stop().await;
    show("redis replaced by an empty one", &seen);
    books::balance(&mut scene, &user, &seen).await;
}

#[tokio::test]
async fn an_ingester_killed_five_times_counts_each_call_once() {
    let (mut scene, user) = scene().await;
    let load = Load::start(&scene, &user, CLIENTS, SEED + 2);
    let mut choice = StdRng::seed_from_u64(SEED);
    for _ in 0..Size::asked().pick(5, 50) {
        sleep(Duration::from_millis(choice.random_range(100..1500))).await;
        scene.platform.control.replace_worker(&scene.platform.spawner).await.unwrap();
    }
    let seen = load.stop().await;
    show("ingester killed", &seen);
    books::balance(&mut scene, &user, &seen).await;
}

#[tokio::test]
async fn a_postgres_that_restarts_under_load_loses_nothing() {
    let (mut scene, user) = scene().await;
    let load = Load::start(&scene, &user, CLIENTS, SEED + 3);
    for _ in 0..Size::asked().pick(1, 5) {
        sleep(Duration::from_secs(2)).await;
        scene.platform.postgres.restart(&scene.platform.spawner).await.unwrap();
    }
    sleep(Duration::from_secs(2)).await;
    let seen = load.stop().await;
    show("postgres restarted", &seen);
    assert!(seen.iter().all(|call| call.end == End::Whole), "calls do not wait for Postgres: {seen:?}");
    books::balance(&mut scene, &user, &seen).await;
}

#[tokio::test]
async fn two_workers_that_race_for_an_hour_write_it_once() {
    let (mut scene, user) = scene().await;
    let load = Load::start(&scene, &user, CLIENTS, SEED + 4);
    sleep(Duration::from_secs(2)).await;
    let seen = load.stop().await;
    let later = HOURS * 3600;
    let mut second = scene.platform.control.second_worker(later, &scene.platform.spawner).await.unwrap();
    scene.platform.control.advance_clock(later, &scene.platform.spawner).await.unwrap();
    let deadline = Instant::now() + LONGEST;
    let written = loop {
        let text = "select kind, count(*), count(distinct hour) from exports group by kind order by kind";
        let written: Vec<(String, i64, i64)> = sqlx::query_as(text).fetch_all(&scene.db).await.unwrap();
        if written.len() == 3 && written.iter().all(|(_, files, _)| *files >= HOURS - 1) {
            break written;
        }
        assert!(Instant::now() < deadline, "not all hours are written: {written:?}");
        sleep(Duration::from_millis(200)).await;
    };
    assert!(written.iter().all(|(_, files, hours)| files == hours), "{written:?}");
    assert!(second.ended().unwrap().is_none(), "the second worker did not take part to the end");
    show("two workers", &seen);
    books::balance(&mut scene, &user, &seen).await;
}
