//! Clients that leave in the middle of an answer end the instance's work and leave a record of what they got.

use std::time::Duration;

use futures::future::join_all;
use reqwest::Version;
use serde_json::json;
use stack::miner::{Behaviour, ClosedEarly, Engine, Fault};
use stack::proof::Size;
use stack::{clock, screen};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::records::{self, Attempt, SETTLED, only_attempt};
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

/// How a client asks: in which version of HTTP, and for an answer in which form.
#[derive(Clone, Copy, Debug)]
struct Way {
    version: Version,
    stream: bool,
}

impl Way {
    const ALL: [Self; 4] = [
        Self { version: Version::HTTP_11, stream: true },
        Self { version: Version::HTTP_2, stream: true },
        Self { version: Version::HTTP_11, stream: false },
        Self { version: Version::HTTP_2, stream: false },
    ];

    /// Leaves once the instance has made exactly so many chunks and no more: of a stream the client has read them all,
    /// of an answer in one piece it has nothing. Gives the time at which it left.
    async fn leave_after(self, scene: &Scene, user: &User, chunks: u64) -> i64 {
        let url = if self.version == Version::HTTP_2 { scene.url("llm") } else { scene.plain_url("llm") };
        if self.stream {
            return leave(scene, user, &url, self.version, chunks).await.at_us;
        }
        let model = &scene.sample(Engine::Vllm).model;
        let messages = json!([{"role": "user", "content": "Go on."}]);
        let body = json!({"model": model, "max_tokens": TOKENS, "messages": messages});
        let request = scene.client().post(format!("{url}/v1/chat/completions")).bearer_auth(&user.key).json(&body);
        tokio::select! {
            answer = request.send() => panic!("an instance that stalls has answered: {answer:?}"),
            () = until_stalled(scene) => {}
        }
        clock::now().timestamp_micros()
    }
}

/// Until an instance works on a call, which is as far then as it will come.
async fn until_stalled(scene: &Scene) {
    let deadline = Instant::now() + LONGEST;
    loop {
        for instance in &scene.sample(Engine::Vllm).instances {
            if scene.platform.miner.counters(instance.port).await.unwrap().in_flight > 0 {
                return;
            }
        }
        assert!(Instant::now() < deadline, "no instance was asked");
        sleep(POLL).await;
    }
}

/// The user's attempts in their order, once there are so many and no more come.
async fn attempts_of(scene: &Scene, user: &User, wanted: usize) -> Vec<Attempt> {
    let user: Uuid = user.id.parse().unwrap();
    let deadline = Instant::now() + LONGEST;
    while records::of_user(&scene.db, user).await.len() < wanted {
        assert!(Instant::now() < deadline, "not all attempts are in Postgres");
        sleep(POLL).await;
    }
    sleep(SETTLED).await;
    records::of_user(&scene.db, user).await
}

#[tokio::test]
async fn at_each_position_of_an_answer_a_client_that_leaves_ends_the_work_and_has_one_exact_record() {
    let (scene, user) = faults::scene().await;
    let positions: Vec<u64> = (1..=100).step_by(Size::asked().pick(33, 1)).collect();
    let before = closed(&scene).await.len();
    let mut left = Vec::new();
    for way in Way::ALL {
        let mut times = Vec::new();
        for &position in &positions {
            let fault = Fault::StallAfter { chunks: position as usize };
            let exact = Behaviour { tokens_per_second: 0.0, prefill_ms: 0, fault, faulty_calls: None };
            scene.behave(Engine::Vllm, &exact).await;
            let at_us = way.leave_after(&scene, &user, position).await;
            let closed = closed_after(&scene, before + left.len()).await;
            assert_eq!(closed.chunks as u64, position);
            times.push(Duration::from_micros(u64::try_from(closed.at_us - at_us).unwrap_or_default()));
            left.push((way, position));
        }
        times.sort();
        let (median, longest) = (times[times.len() / 2], times[times.len() - 1]);
        screen::say(&format!("{way:?}: {} clients left, closed after {median:?}, at most {longest:?}", times.len()));
        let allowed = Duration::from_millis(Size::asked().pick(500, 50));
        assert!(median <= allowed, "upstream closed only after {median:?}");
    }
    let attempts = attempts_of(&scene, &user, left.len()).await;
    assert_eq!(attempts.len(), left.len(), "not one record for each call");
    for ((way, position), attempt) in left.into_iter().zip(attempts) {
        let error = (!way.stream).then_some("ABORTED");
        let relayed = if way.stream { position } else { 0 };
        let recorded = (attempt.outcome.as_str(), attempt.delivered, attempt.error_message.as_deref());
        assert_eq!((recorded, attempt.count("ot")), (("aborted", way.stream, error), relayed), "{way:?} {position}");
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
    for number in 0..Size::asked().pick(4, 40) {
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
