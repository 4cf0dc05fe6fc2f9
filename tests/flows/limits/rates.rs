//! Calls per minute: kept together, also while Redis is silent or comes back empty, and mostly without asking it.

use std::time::Duration;

use reqwest::{Client, StatusCode};
use stack::proof::Size;
use stack::screen;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Decisions, FREE, GATEWAYS, LONGEST, known_user, part, scene, urls, wait_until_shared};
use crate::scene::{Scene, User};

const MINUTE: Duration = Duration::from_secs(60);
/// A call frees its place at the turn of a second, up to this time after it began.
const FREED: Duration = Duration::from_secs(61);
/// How soon after Redis is back it gives out slots.
const BACK_WITHIN: Duration = Duration::from_secs(5);
/// Calls of one user at once at one gateway.
const AT_ONCE: usize = 4;
/// An allowance that nobody uses up.
const LARGE: u32 = 10_000_000;

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

/// Calls that stay below all limits: all are let in, and few wait for an answer of Redis.
async fn pass_without_round_trips(scene: &Scene, users: &[Bursty], every: Duration) {
    let before = Decisions::read(scene).await;
    let lasting = Size::asked().pick(Duration::from_secs(10), Duration::from_secs(60));
    let calls = bursts(scene, users, every, lasting).await;
    assert!(calls.iter().flatten().all(|call| call.let_in), "a user below his limit was refused");
    let decided = before.since(scene, "calls that are let in").await;
    let least = Size::asked().pick(0.9, 0.99);
    assert!(decided.0.iter().all(|by_way| part(&[*by_way]) >= least), "too many round trips");
}

/// A user who has an allowance, or else has no need of one.
async fn bursty(scene: &mut Scene, limit: u32, times: u32, allowance: Option<u32>) -> Bursty {
    let (rate, free) = (limit.to_string(), ["--permissions", FREE]);
    let limits = ["--rate", &rate, "--concurrent", "1000"];
    let more = [&limits[..], if allowance.is_some() { &[] } else { &free }].concat();
    let user = known_user(scene, &format!("rate-{limit}"), allowance.unwrap_or(1), &more).await;
    Bursty { user, limit, times }
}

/// The share of a gateway that is on its own.
fn share(limit: u32) -> usize {
    (limit as usize).div_ceil(GATEWAYS)
}

/// The most calls of a minute in which Redis leaves.
fn bound(limit: u32) -> usize {
    limit as usize + (GATEWAYS - 1) * share(limit)
}

/// Redis is silent for two minutes: limits hold together with what was let in before, and then by shares alone. The last
/// of the users has called nobody before.
async fn without_redis(scene: &mut Scene, users: &[Bursty], seen: &mut [Vec<Seen>], began: Instant, every: Duration) {
    scene.platform.redis.process().freeze().unwrap();
    wait_until_shared(scene, 0).await;
    let silent = Instant::now();
    let away = bursts(scene, users, every, Size::asked().pick(2 * every, 2 * MINUTE + 2 * every)).await;
    let heard = Instant::now();
    seen.iter_mut().zip(away).for_each(|(seen, away)| seen.extend(away));
    for (bursty, seen) in users.iter().zip(&*seen) {
        let (at_first, later) = (most_in_a_minute(seen, began, heard), most_in_a_minute(seen, silent + FREED, heard));
        let (bound, all) = (bound(bursty.limit), GATEWAYS * share(bursty.limit));
        screen::say(&format!(
            "limit {}, redis silent: at most {at_first} in a minute, bound {bound}; at most {later} after the first \
             minute, bound {all}",
            bursty.limit
        ));
        assert!(at_first <= bound, "{at_first} calls in a minute");
        assert!(later <= all, "{later} calls in a minute long after redis left");
    }
    let last = users.len() - 1;
    let shares = GATEWAYS * share(users[last].limit);
    let let_in = most_in_a_minute(&seen[last], silent, heard);
    // Of each gateway, the call before may still count.
    assert!((shares - GATEWAYS..=shares).contains(&let_in), "{let_in} calls in a minute of one who had none before");
}

/// In full it takes ten minutes: real minutes pass.
#[tokio::test]
async fn four_gateways_keep_bursty_users_to_their_limits_whatever_redis_does() {
    let mut scene = scene().await;
    let limits = Size::asked().pick([(20, 6), (80, 4), (200, 2)], [(60, 60), (300, 20), (1200, 5)]);
    let mut users = Vec::new();
    for (limit, times) in limits {
        users.push(bursty(&mut scene, limit, times, None).await);
    }
    // Calls only once Redis is silent.
    users.push(bursty(&mut scene, Size::asked().pick(100, 400), 20, None).await);
    let exhausted = &users[..limits.len()];
    let every = Size::asked().pick(Duration::from_secs(3), Duration::from_secs(5));

    let calm = [bursty(&mut scene, Size::asked().pick(3_000, 24_000), 1, Some(LARGE)).await];
    pass_without_round_trips(&scene, &calm, every).await;

    let began = Instant::now();
    let lasting = Size::asked().pick(Duration::from_secs(60), Duration::from_secs(180));
    let decided = Decisions::read(&scene).await;
    let mut seen = bursts(&scene, exhausted, every, lasting).await;
    let before = Instant::now();
    let decided = decided.since(&scene, "all calls of bursty users").await;
    // Limits as small as those of the small run are always near exhaustion, where each call asks.
    assert!(part(&decided.0) >= Size::asked().pick(0.0, 0.99), "too many round trips");
    for (bursty, seen) in exhausted.iter().zip(&seen) {
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

    seen.push(Vec::new());
    without_redis(&mut scene, &users, &mut seen, began, every).await;
    scene.platform.redis.process().thaw().unwrap();
    wait_until_shared(&scene, 1).await;
    scene.platform.redis.replace_by_empty(&scene.platform.spawner).await.unwrap();
    let forgotten = Instant::now() + BACK_WITHIN + FREED;
    let more = bursts(&scene, &users, every, Size::asked().pick(2 * every, Duration::from_secs(180))).await;
    wait_until_shared(&scene, 1).await;
    let after = Instant::now();
    for ((bursty, seen), more) in users.iter().zip(&mut seen).zip(more) {
        seen.extend(more);
        let most = most_in_a_minute(seen, began, after);
        let bound = bound(bursty.limit);
        screen::say(&format!("limit {}, redis emptied: at most {most} in a minute, bound {bound}", bursty.limit));
        assert!(most <= bound, "{most} calls in a minute");
        let exact = most_in_a_minute(seen, forgotten, after);
        assert!(exact <= bursty.limit as usize, "{exact} calls in a minute long after redis came back");
    }
}
