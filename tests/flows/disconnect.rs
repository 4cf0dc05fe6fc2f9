//! Clients that leave in the middle of a stream end the instance's work and leave a record of what they got.

use std::time::Duration;

use futures::future::join_all;
use reqwest::Version;
use serde_json::json;
use stack::miner::{Behaviour, ClosedEarly, Engine};
use stack::proof::Size;
use stack::{clock, screen};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::records::only_attempt;
use crate::scene::{Scene, User};
use crate::{faults, load};

const LONGEST: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(10);
const TOKENS_PER_SECOND: f64 = 50.0;
/// Tokens of a stream that nobody waits for to its end.
const TOKENS: u64 = 10_000;
/// Tokens that were on their way when the client left.
const IN_FLIGHT: u64 = 3;

/// A client that is gone.
struct Gone {
    call: Uuid,
    /// Content chunks it read.
    tokens: u64,
    /// Unix time in microseconds.
    at_us: i64,
}

/// Reads so many chunks of a stream over a fresh connection, and leaves.
async fn leave(scene: &Scene, user: &User, url: &str, version: Version, after: u64) -> Gone {
    let model = &scene.sample(Engine::Vllm).model;
    let messages = json!([{"role": "user", "content": "Go on."}]);
    let body = json!({"model": model, "stream": true, "max_tokens": TOKENS, "messages": messages});
    let request = scene.client().post(format!("{url}/v1/chat/completions")).bearer_auth(&user.key).json(&body);
    let answer = request.send().await.unwrap().error_for_status().unwrap();
    assert_eq!(answer.version(), version);
    let call = load::call_of(&answer).unwrap();
    let mut pieces = answer.bytes_stream();
    let (tokens, _) = load::read(&mut pieces, after).await;
    assert_eq!(tokens, after);
    Gone { call, tokens, at_us: clock::now().timestamp_micros() }
}

/// All answers of the text chute that nobody waited for, the latest last.
async fn closed(scene: &Scene) -> Vec<ClosedEarly> {
    let mut closed = Vec::new();
    for instance in &scene.sample(Engine::Vllm).instances {
        closed.extend(scene.platform.miner.counters(instance.port).await.unwrap().closed_early);
    }
    closed.sort_by_key(|closed| closed.at_us);
    closed
}

/// The end of the call that was the only one at work.
async fn closed_after(scene: &Scene, before: usize) -> ClosedEarly {
    let deadline = Instant::now() + LONGEST;
    loop {
        let closed = closed(scene).await;
        if closed.len() > before {
            assert_eq!(closed.len(), before + 1, "one client ended two calls");
            return closed[before];
        }
        assert!(Instant::now() < deadline, "the instance was not told that the client left");
        sleep(POLL).await;
    }
}

#[tokio::test]
async fn clients_that_leave_end_the_instances_work_at_once_and_leave_one_partial_record_each() {
    let (scene, user) = faults::scene().await;
    let slow = Behaviour { tokens_per_second: TOKENS_PER_SECOND, ..Behaviour::default() };
    scene.behave(Engine::Vllm, &slow).await;
    let ways = [(scene.plain_url("llm"), Version::HTTP_11), (scene.url("llm"), Version::HTTP_2)];
    let before = closed(&scene).await.len();
    let mut left = Vec::new();
    for number in 0..Size::asked().pick(10, 100) {
        let (url, version) = &ways[number % ways.len()];
        let gone = leave(&scene, &user, url, *version, 1 + number as u64).await;
        left.push((gone, closed_after(&scene, before + number).await));
    }
    let noticed = |(gone, closed): &(Gone, ClosedEarly)| {
        Duration::from_micros(u64::try_from(closed.at_us - gone.at_us).unwrap_or_default())
    };
    let mut times: Vec<Duration> = left.iter().map(noticed).collect();
    times.sort();
    let (median, longest) = (times[times.len() / 2], times[times.len() - 1]);
    screen::say(&format!("{} clients left: upstream closed after {median:?}, at most {longest:?}", left.len()));
    let allowed = Duration::from_millis(Size::asked().pick(500, 50));
    assert!(median <= allowed, "upstream closed only after {median:?}");

    let attempts = left.iter().map(|(gone, _)| async { only_attempt(&scene.db, &json!(gone.call)).await });
    for (one, attempt) in left.iter().zip(join_all(attempts).await) {
        let (gone, closed) = one;
        assert_eq!((attempt.outcome.as_str(), attempt.delivered, &attempt.error_message), ("aborted", true, &None));
        let meanwhile = (noticed(one).as_secs_f64() * TOKENS_PER_SECOND).ceil() as u64;
        let most = (gone.tokens + IN_FLIGHT + meanwhile).min(closed.chunks as u64);
        let counted = attempt.count("ot");
        assert!((gone.tokens..=most).contains(&counted), "{counted} tokens, read {}, {closed:?}", gone.tokens);
    }
}
