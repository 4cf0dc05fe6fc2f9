//! Calls at once: of a user over all instances, and of all users on one instance.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};
use stack::miner::{Behaviour, Engine};
use stack::proof::Size;
use stack::screen;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::{FREE, GATEWAYS, LONGEST, POLL, known_user, scene};
use crate::books;
use crate::scene::{Scene, User};

/// Calls at once that the user may make.
const AT_ONCE: usize = 6;
/// Calls that each gateway is asked for at the same time.
const OFFERED: usize = 8;
/// Long enough for all calls of a burst to meet.
const ANSWER: Duration = Duration::from_millis(200);

/// So many bursts of calls at all gateways, each call on its own; how many were let in.
async fn bursts(scene: &Scene, user: &User, host: &str, path: &str, body: &Value) -> usize {
    let (web, mut let_in) = (scene.client(), 0);
    for _ in 0..Size::asked().pick(10, 100) {
        let mut calls = JoinSet::new();
        for call in 0..GATEWAYS * OFFERED {
            let url = format!("{}{path}", scene.url_at(host, call % GATEWAYS));
            let request = web.post(url).bearer_auth(&user.key).json(body).timeout(LONGEST);
            calls.spawn(async move {
                let answer = request.send().await.unwrap();
                let status = answer.status();
                answer.bytes().await.unwrap();
                status
            });
        }
        let ended = calls.join_all().await;
        let expected = [StatusCode::OK, StatusCode::TOO_MANY_REQUESTS];
        assert!(ended.iter().all(|status| expected.contains(status)), "{ended:?}");
        let_in += ended.iter().filter(|status| **status == StatusCode::OK).count();
    }
    let_in
}

/// Until each call of the user that was let in has its row; there is never one more.
async fn wait_for_rows(scene: &Scene, user: Uuid, before: usize, let_in: usize) {
    let deadline = Instant::now() + LONGEST;
    while books::count(&scene.db, user).await < before + let_in {
        assert!(Instant::now() < deadline, "not all of {let_in} calls are recorded");
        sleep(POLL).await;
    }
    assert_eq!(books::count(&scene.db, user).await, before + let_in);
}

/// Bursts of calls of one engine, whose only instance sees how many are there at once; no more than `limit`, and all
/// of it.
async fn keep_to(scene: &mut Scene, engine: Engine, concurrent: usize, limit: usize) {
    let slow = Behaviour { prefill_ms: ANSWER.as_millis() as u64, tokens_per_second: 0.0, ..Behaviour::default() };
    scene.behave(engine, &slow).await;
    let more = ["--permissions", FREE, "--rate", "10000000", "--concurrent", &concurrent.to_string()];
    let user = known_user(scene, &format!("at-once-{concurrent}"), 1, &more).await;
    let id: Uuid = user.id.parse().unwrap();
    wait_for_rows(scene, id, 0, GATEWAYS).await;
    let chute = scene.sample(engine).clone();
    let [instance] = &chute.instances[..] else { panic!("one instance sees all calls") };
    let let_in = match engine {
        Engine::Diffusion => {
            bursts(scene, &user, "image", "/generate", &json!({"model": chute.model, "prompt": "a boat"})).await
        }
        Engine::Embedding | Engine::Vllm => {
            bursts(scene, &user, "embed", "/v1/embeddings", &json!({"model": chute.model, "input": "a word"})).await
        }
    };
    let counters = scene.platform.miner.counters(instance.port).await.unwrap();
    let most = counters.most_in_flight;
    screen::say(&format!("{engine:?}, limit {limit}: {let_in} calls let in, at most {most} at once"));
    assert_eq!(most, limit, "calls at once");
    assert_eq!(counters.limited, 0, "calls were sent to a full instance");
    wait_for_rows(scene, id, GATEWAYS, let_in).await;
}

#[tokio::test]
async fn four_gateways_keep_a_user_and_an_instance_to_their_calls_at_once() {
    let mut scene = scene().await;
    let places = scene.sample(Engine::Diffusion).concurrency;
    keep_to(&mut scene, Engine::Embedding, AT_ONCE, AT_ONCE).await;
    keep_to(&mut scene, Engine::Diffusion, 1000, places).await;
}
