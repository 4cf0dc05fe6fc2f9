//! Four gateways on one Redis keep limits together, also while Redis is silent or comes back empty.

use std::time::Duration;

use reqwest::{Client, StatusCode};
use stack::miner::Engine;
use stack::proof::Size;
use stack::screen;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::scene::{Scene, User};

const GATEWAYS: usize = 4;
const MINUTE: Duration = Duration::from_secs(60);
/// A call frees its place at the turn of a second, up to this time after it began.
const FREED: Duration = Duration::from_secs(61);
/// How soon after Redis is back it gives out slots.
const BACK_WITHIN: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(60);
/// Calls of one user at once at one gateway.
const AT_ONCE: usize = 4;
/// Permission bit of those who have no allowance to use up.
const FREE: &str = "16";

/// A user with a limit, and how often above it he calls.
struct Bursty {
    user: User,
    limit: u32,
    times: u32,
}

/// One call as its client saw it.
#[derive(Clone, Copy, Debug)]
struct Seen {
    began: Instant,
    ended: Instant,
    let_in: bool,
}

/// One call; whether it was let in.
async fn call(web: &Client, url: &str, key: &str) -> Seen {
    let began = Instant::now();
    let answer = web.get(url).bearer_auth(key).timeout(LONGEST).send().await.unwrap();
    let status = answer.status();
    assert!([StatusCode::OK, StatusCode::TOO_MANY_REQUESTS].contains(&status), "{status}");
    // The rest of the answer is waited for, so that the connection serves the next call.
    answer.bytes().await.unwrap();
    Seen { began, ended: Instant::now(), let_in: status == StatusCode::OK }
}

fn urls(scene: &Scene) -> Vec<String> {
    let slug = &scene.sample(Engine::Vllm).slug;
    (0..GATEWAYS).map(|number| format!("{}/v1/models", scene.url_at(slug, number))).collect()
}

/// So many calls at one gateway, some at once.
async fn burst(web: Client, url: String, key: String, calls: u32) -> Vec<Seen> {
    let mut callers = JoinSet::new();
    for caller in 0..AT_ONCE {
        let (web, url, key) = (web.clone(), url.clone(), key.clone());
        let share = (calls as usize + caller) / AT_ONCE;
        callers.spawn(async move {
            let mut seen = Vec::new();
            for _ in 0..share {
                seen.push(call(&web, &url, &key).await);
            }
            seen
        });
    }
    callers.join_all().await.concat()
}

/// Bursts of each user at all gateways, every few seconds, for this time.
async fn bursts(scene: &Scene, users: &[Bursty], every: Duration, lasting: Duration) -> Vec<Vec<Seen>> {
    let (until, urls) = (Instant::now() + lasting, urls(scene));
    let mut calling = JoinSet::new();
    for (number, bursty) in users.iter().enumerate() {
        let in_a_minute = f64::from(bursty.limit * bursty.times);
        let calls = (in_a_minute * every.as_secs_f64() / 60.0 / GATEWAYS as f64).ceil() as u32;
        for (gateway, url) in urls.iter().enumerate() {
            let (web, url, key) = (scene.client(), url.clone(), bursty.user.key.clone());
            calling.spawn(async move {
                let mut seen = Vec::new();
                let mut next = Instant::now() + every.mul_f64(gateway as f64 / GATEWAYS as f64);
                while next < until {
                    tokio::time::sleep_until(next).await;
                    seen.extend(burst(web.clone(), url.clone(), key.clone(), calls).await);
                    next = Instant::now().max(next + every);
                }
                (number, seen)
            });
        }
    }
    let mut seen = vec![Vec::new(); users.len()];
    while let Some(called) = calling.join_next().await {
        let (number, calls) = called.unwrap();
        seen[number].extend(calls);
    }
    seen
}

/// The most calls that surely were let in within 60 s, of those that began in this span.
fn most_in_a_minute(seen: &[Seen], from: Instant, until: Instant) -> usize {
    let let_in = |call: &&Seen| call.let_in && call.began >= from && call.ended <= until;
    let mut calls: Vec<&Seen> = seen.iter().filter(let_in).collect();
    calls.sort_by_key(|call| call.began);
    let within = |first: usize| calls[first..].iter().filter(|call| call.ended <= calls[first].began + MINUTE).count();
    (0..calls.len()).map(within).max().unwrap_or(0)
}

/// A number out of a gateway's metrics.
async fn metric(scene: &Scene, gateway: usize, line: &str) -> u64 {
    let url = format!("{}/metrics", scene.platform.gateways[gateway].internal_url());
    let request = scene.client().get(url).bearer_auth(&scene.platform.secrets.internal).timeout(LONGEST);
    let text = request.send().await.unwrap().error_for_status().unwrap().text().await.unwrap();
    let value = text.lines().find_map(|found| found.strip_prefix(line)?.trim().parse().ok());
    value.unwrap_or(0)
}

/// Waits until each gateway is given slots, or none is; and until each knows all.
async fn wait_until_shared(scene: &Scene, shared: u64) {
    let deadline = Instant::now() + LONGEST;
    for gateway in 0..GATEWAYS {
        while metric(scene, gateway, "chutes_gateway_lease_redis ").await != shared
            || metric(scene, gateway, "chutes_gateway_lease_gateways ").await != GATEWAYS as u64
        {
            assert!(Instant::now() < deadline, "gateway {gateway} does not notice");
            sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Decisions about callers at all gateways: without a question to Redis, and with one.
async fn decisions(scene: &Scene) -> [u64; 2] {
    let mut sums = [0; 2];
    for gateway in 0..GATEWAYS {
        for (sum, way) in sums.iter_mut().zip(["local", "asked"]) {
            let name = format!("chutes_gateway_limit_decisions_total{{limit=\"caller\",way=\"{way}\"}}");
            *sum += metric(scene, gateway, &name).await;
        }
    }
    sums
}

/// The part of the decisions since then that needed no question to Redis.
async fn without_a_round_trip(scene: &Scene, before: [u64; 2], which: &str) -> f64 {
    let now = decisions(scene).await;
    let [local, asked] = [0, 1].map(|way| now[way] - before[way]);
    let part = local as f64 / (local + asked) as f64;
    screen::say(&format!(
        "{which}: {local} decisions without a round trip, {asked} with one: {:.2} % without",
        part * 100.0
    ));
    part
}

/// Calls that stay below their limit: all are let in, and few wait for an answer of Redis.
async fn pass_without_round_trips(scene: &Scene, users: &[Bursty], every: Duration) {
    let before = decisions(scene).await;
    let lasting = Size::asked().pick(Duration::from_secs(10), Duration::from_secs(60));
    let calls = bursts(scene, users, every, lasting).await;
    assert!(calls.iter().flatten().all(|call| call.let_in), "a user below his limit was refused");
    let part = without_a_round_trip(scene, before, "calls that are let in").await;
    assert!(part >= Size::asked().pick(0.9, 0.99), "too many round trips");
}

async fn bursty(scene: &mut Scene, limit: u32, times: u32) -> Bursty {
    let more = ["--permissions", FREE, "--rate", &limit.to_string(), "--concurrent", "1000"];
    let user = scene.user(&format!("rate-{limit}"), 1, &more).await;
    let bursty = Bursty { user, limit, times };
    for url in urls(scene) {
        let deadline = Instant::now() + LONGEST;
        while scene.client().get(&url).bearer_auth(&bursty.user.key).send().await.unwrap().status() != StatusCode::OK {
            assert!(Instant::now() < deadline, "a gateway does not know the user");
            sleep(Duration::from_millis(50)).await;
        }
    }
    bursty
}

/// The share of a gateway that is on its own.
fn share(limit: u32) -> usize {
    (limit as usize).div_ceil(GATEWAYS)
}

/// In full it takes eight minutes: real minutes pass.
#[tokio::test]
async fn four_gateways_keep_bursty_users_to_their_limits_whatever_redis_does() {
    let mut scene = Scene::with(|options| {
        options.gateways = GATEWAYS;
        // Callers stay known for as long as Redis is silent.
        options.gateway_settings.push(("GATEWAY_STALE_AFTER".into(), "900".into()));
    })
    .await;
    wait_until_shared(&scene, 1).await;
    let limits = Size::asked().pick([(20, 6), (80, 4), (200, 2)], [(60, 60), (300, 20), (1200, 5)]);
    let mut users = Vec::new();
    for (limit, times) in limits {
        users.push(bursty(&mut scene, limit, times).await);
    }
    let untouched = [bursty(&mut scene, Size::asked().pick(100, 400), 20).await];
    let every = Size::asked().pick(Duration::from_secs(3), Duration::from_secs(5));

    let calm = [bursty(&mut scene, Size::asked().pick(3_000, 24_000), 1).await];
    pass_without_round_trips(&scene, &calm, every).await;

    let began = Instant::now();
    let lasting = Size::asked().pick(Duration::from_secs(60), Duration::from_secs(180));
    let decided = decisions(&scene).await;
    let mut seen = bursts(&scene, &users, every, lasting).await;
    let before = Instant::now();
    let part = without_a_round_trip(&scene, decided, "all calls of bursty users").await;
    // Limits as small as those of the small run are always near exhaustion, where each call asks.
    assert!(part >= Size::asked().pick(0.0, 0.99), "too many round trips");
    for (bursty, seen) in users.iter().zip(&seen) {
        let most = most_in_a_minute(seen, began, before);
        let refused = seen.iter().filter(|call| !call.let_in).count();
        screen::say(&format!(
            "limit {}: at most {most} in a minute, {refused} of {} refused",
            bursty.limit,
            seen.len()
        ));
        assert!(most <= bursty.limit as usize, "{most} calls in a minute");
        // The calls before the bursts, one at each gateway, count too.
        let least = bursty.limit as usize * 99 / 100 - GATEWAYS - 1;
        assert!(most >= least, "only {most} calls in a minute although more were offered");
    }

    scene.platform.redis.process().freeze().unwrap();
    wait_until_shared(&scene, 0).await;
    let away = bursts(&scene, &untouched, every, Size::asked().pick(2 * every, Duration::from_secs(60))).await;
    scene.platform.redis.process().thaw().unwrap();
    wait_until_shared(&scene, 1).await;
    scene.platform.redis.replace_by_empty(&scene.platform.spawner).await.unwrap();
    let forgotten = Instant::now() + BACK_WITHIN + FREED;
    let more = bursts(&scene, &users, every, Size::asked().pick(2 * every, Duration::from_secs(180))).await;
    wait_until_shared(&scene, 1).await;
    let after = Instant::now();
    for (bursty, away) in untouched.iter().zip(&away) {
        let most = most_in_a_minute(away, before, after);
        let bound = bursty.limit as usize + (GATEWAYS - 1) * share(bursty.limit);
        screen::say(&format!("limit {}, redis silent: at most {most} in a minute, bound {bound}", bursty.limit));
        assert!((share(bursty.limit)..=bound).contains(&most), "{most} calls in a minute");
    }
    for ((bursty, seen), more) in users.iter().zip(&mut seen).zip(more) {
        seen.extend(more);
        let most = most_in_a_minute(seen, began, after);
        let bound = bursty.limit as usize + (GATEWAYS - 1) * share(bursty.limit);
        screen::say(&format!("limit {}, redis emptied: at most {most} in a minute, bound {bound}", bursty.limit));
        assert!(most <= bound, "{most} calls in a minute");
        let exact = most_in_a_minute(seen, forgotten, after);
        assert!(exact <= bursty.limit as usize, "{exact} calls in a minute long after redis came back");
    }
}
