//! Whatever dies under load, each call is counted once: by clients, in Postgres and in the export.

mod away;
mod disk;
mod kills;

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sqlx::PgPool;
use stack::miner::{Behaviour, Engine};
use stack::platform::Options;
use stack::proof::Size;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::books;
use crate::load::{self, End, Load, Seen};
use crate::scene::{Scene, User};

const SEED: u64 = 64;
const CLIENTS: u64 = 6;
const LONGEST: Duration = Duration::from_secs(30);
/// How long gateways trust what they know while Redis is silent, less the time that noticing it takes.
const TRUSTED: Duration = Duration::from_secs(25);
/// How soon after Redis is back everything is as before.
const BACK_WITHIN: Duration = Duration::from_secs(5);

/// A platform and somebody who calls it without limits.
pub(crate) async fn scene() -> (Scene, User) {
    scene_with(|_| ()).await
}

/// The same with other options.
pub(crate) async fn scene_with(adapt: impl FnOnce(&mut Options)) -> (Scene, User) {
    let mut scene = Scene::with(adapt).await;
    let user = scene.unlimited_user("load", &[]).await;
    for gateway in 0..scene.gateways() {
        wait_until_known(&scene, gateway, &user).await;
    }
    (scene, user)
}

/// Until a gateway knows a new key: then a model that nobody has is what it misses, and no call is recorded.
pub(crate) async fn wait_until_known(scene: &Scene, gateway: usize, user: &User) {
    let deadline = Instant::now() + LONGEST;
    let (web, url) = (scene.client(), scene.url_at("llm", gateway));
    while load::ask(&web, &url, &user.key, "nobody/nothing", 1).await.end != End::Refused(404) {
        assert!(Instant::now() < deadline, "gateway {gateway} does not know the user");
        sleep(Duration::from_millis(50)).await;
    }
}

/// Rows that were ingested.
pub(crate) async fn count(db: &PgPool) -> i64 {
    sqlx::query_scalar("select count(*) from invocations").fetch_one(db).await.unwrap()
}

/// Until the ingester works: there are more rows than before.
async fn wait_for_more_rows(db: &PgPool, before: i64) {
    let deadline = Instant::now() + LONGEST;
    while count(db).await <= before {
        assert!(Instant::now() < deadline, "the ingester does not go on from {before} rows");
        sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) fn show(what: &str, seen: &[Seen]) {
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
            let (web, url, key) = (scene.client(), scene.plain_url("llm"), user.key.clone());
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
async fn a_redis_that_stands_still_under_load_loses_nothing_and_callers_are_served_meanwhile() {
    let (mut scene, user) = scene().await;
    let load = Load::start(&scene, &user, CLIENTS, SEED);
    sleep(Duration::from_secs(2)).await;
    scene.platform.redis.process().freeze().unwrap();
    let frozen = Instant::now();
    sleep(Duration::from_secs(Size::asked().pick(5, 60))).await;
    scene.platform.redis.process().thaw().unwrap();
    let served_from = Instant::now() + BACK_WITHIN;
    sleep(BACK_WITHIN + Duration::from_secs(2)).await;
    let seen = load.stop().await;
    show("redis stopped", &seen);
    let served = |from: Instant, until: Instant| {
        let within: Vec<&Seen> = seen.iter().filter(|call| (from..until).contains(&call.started)).collect();
        assert!(!within.is_empty(), "nobody called");
        let refused: Vec<_> = within.iter().filter(|call| call.end != End::Whole).collect();
        assert!(refused.is_empty(), "of {} calls these were not served: {refused:?}", within.len());
    };
    let thawed = served_from - BACK_WITHIN;
    served(frozen, thawed.min(frozen + TRUSTED));
    served(served_from, Instant::now());
    if Size::asked() == Size::Small {
        served(frozen, Instant::now());
    }
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
    let (mut choice, mut rows) = (StdRng::seed_from_u64(SEED), 0);
    for _ in 0..Size::asked().pick(5, 50) {
        wait_for_more_rows(&scene.db, rows).await;
        sleep(Duration::from_millis(choice.random_range(0..1000))).await;
        scene.platform.control.replace_worker(&scene.platform.spawner).await.unwrap();
        rows = count(&scene.db).await;
    }
    wait_for_more_rows(&scene.db, rows).await;
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
