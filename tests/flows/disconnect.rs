//! Clients that leave in the middle of an answer end the instance's work and leave a record of what they got.

use std::time::Duration;

use futures::future::join_all;
use reqwest::{Response, Version};
use serde_json::json;
use stack::miner::{Behaviour, ClosedEarly, Counters, Engine, Fault};
use stack::proof::Size;
use stack::{clock, screen, web};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::records::{self, Attempt, SETTLED, only_attempt};
use crate::scene::{Scene, User};
use crate::{faults, load};

const LONGEST: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(10);
const TOKENS_PER_SECOND: f64 = 50.0;
/// Tokens of an answer that nobody waits for to its end.
const TOKENS: u64 = 10_000;
/// Tokens of an answer that fits into no buffers on its way.
const LARGE: u64 = 1_000_000;
/// What systems and clients take at most of an answer that is not read: 4 MiB where it is sent, the rest where it goes.
const BUFFERS: u64 = 6 << 20;
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

/// How a client reaches the edge, over a connection of its own.
#[derive(Clone, Copy, Debug)]
enum Wire {
    Plain,
    Tls,
    Http2,
}

impl Wire {
    const ALL: [Self; 3] = [Self::Plain, Self::Tls, Self::Http2];

    /// The answer to a chat of so many tokens, which may have only begun.
    async fn ask(self, scene: &Scene, user: &User, stream: bool, tokens: u64) -> Response {
        let builder = web::builder([scene.platform.certificates.authority.as_path()]).unwrap();
        let (builder, url, version) = match self {
            Self::Plain => (builder, scene.plain_url("llm"), Version::HTTP_11),
            Self::Tls => (builder.http1_only(), scene.url("llm"), Version::HTTP_11),
            Self::Http2 => (builder, scene.url("llm"), Version::HTTP_2),
        };
        let model = &scene.sample(Engine::Vllm).model;
        let messages = json!([{"role": "user", "content": "Go on."}]);
        let body = json!({"model": model, "stream": stream, "max_tokens": tokens, "messages": messages});
        let request = builder.build().unwrap().post(format!("{url}/v1/chat/completions"));
        let answer = request.bearer_auth(&user.key).json(&body).send().await.unwrap().error_for_status().unwrap();
        assert_eq!(answer.version(), version);
        answer
    }

    /// Reads so many chunks of a stream, and leaves.
    async fn leave(self, scene: &Scene, user: &User, after: u64) -> Gone {
        let answer = self.ask(scene, user, true, TOKENS).await;
        let call = load::call_of(&answer).unwrap();
        let mut pieces = answer.bytes_stream();
        let (tokens, _) = load::read(&mut pieces, after).await;
        assert_eq!(tokens, after);
        Gone { call, tokens, at_us: clock::now().timestamp_micros() }
    }
}

/// What the instances of the text chute have counted.
async fn counters(scene: &Scene) -> Vec<Counters> {
    let instances = scene.sample(Engine::Vllm).instances.iter();
    join_all(instances.map(async |instance| scene.platform.miner.counters(instance.port).await.unwrap())).await
}

/// All answers of the text chute that nobody waited for, the latest last.
async fn closed(scene: &Scene) -> Vec<ClosedEarly> {
    let mut closed: Vec<_> = counters(scene).await.into_iter().flat_map(|counted| counted.closed_early).collect();
    closed.sort_by_key(|closed| closed.at_us);
    closed
}

/// How many answers of the text chute have stalled.
async fn stalled(scene: &Scene) -> u64 {
    counters(scene).await.iter().map(|counted| counted.stalled).sum()
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

/// How a client asks: over what, and for an answer in which form.
#[derive(Clone, Copy, Debug)]
struct Way {
    wire: Wire,
    stream: bool,
}

impl Way {
    fn all() -> impl Iterator<Item = Self> {
        [true, false].into_iter().flat_map(|stream| Wire::ALL.map(|wire| Self { wire, stream }))
    }

    /// Leaves once the instance has sent exactly so many chunks and no more: of a stream the client has read them all,
    /// of an answer in one piece it has nothing, because the edge waits for the rest. Gives the time at which it left.
    async fn leave_after(self, scene: &Scene, user: &User, chunks: u64) -> i64 {
        if self.stream {
            return self.wire.leave(scene, user, chunks).await.at_us;
        }
        let before = stalled(scene).await;
        tokio::select! {
            answer = self.wire.ask(scene, user, false, TOKENS) => panic!("half an answer was given: {answer:?}"),
            () = until_stalled(scene, before) => {}
        }
        clock::now().timestamp_micros()
    }
}

/// Until one more answer has stalled.
async fn until_stalled(scene: &Scene, before: u64) {
    let deadline = Instant::now() + LONGEST;
    while stalled(scene).await == before {
        assert!(Instant::now() < deadline, "no instance has stalled");
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
    for way in Way::all() {
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
    let before = closed(&scene).await.len();
    let mut left = Vec::new();
    for number in 0..Size::asked().pick(4, 40) {
        let gone = Wire::ALL[number % Wire::ALL.len()].leave(&scene, &user, 1 + number as u64).await;
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

#[tokio::test]
async fn a_client_that_leaves_in_a_large_answer_in_one_piece_has_one_record_of_all_its_tokens() {
    let (scene, user) = faults::scene().await;
    let instant = Behaviour { tokens_per_second: 0.0, prefill_ms: 0, ..Behaviour::default() };
    scene.behave(Engine::Vllm, &instant).await;
    let mut left = Vec::new();
    for number in 0..Size::asked().pick(3, 30) {
        let wire = Wire::ALL[number % Wire::ALL.len()];
        let mut answer = wire.ask(&scene, &user, false, LARGE).await;
        // A length is known only of an answer whose instance has given all of it.
        assert!(answer.content_length().unwrap() > BUFFERS);
        assert!(!answer.chunk().await.unwrap().unwrap().is_empty());
        left.push(wire);
    }
    let attempts = attempts_of(&scene, &user, left.len()).await;
    assert_eq!(attempts.len(), left.len(), "not one record for each call");
    for (wire, attempt) in left.into_iter().zip(attempts) {
        let recorded = (attempt.outcome.as_str(), attempt.delivered, &attempt.error_message, attempt.count("ot"));
        assert_eq!(recorded, ("aborted", true, &None, LARGE), "{wire:?}");
    }
}
