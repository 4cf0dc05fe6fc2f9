//! What the operator changes is in force at every gateway within a second.

use std::time::Duration;

use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};
use stack::miner::Engine;
use stack::proof::Size;
use stack::screen;
use tokio::time::{Instant, sleep};

use crate::faults;
use crate::load::{End, Load};
use crate::scene::Scene;

/// How soon a change is in force.
const ALLOWED: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);
const CLIENTS: u64 = 6;
const SEED: u64 = 17;

/// A short chat with a model, in one piece.
async fn chat(scene: &Scene, web: &Client, gateway: usize, model: &str) -> Response {
    let messages = json!([{"role": "user", "content": "Say a word."}]);
    let body = json!({"model": model, "messages": messages, "max_tokens": 1});
    let url = format!("{}/v1/chat/completions", scene.url_at("llm", gateway));
    web.post(url).bearer_auth(scene.sample_key()).json(&body).timeout(LONGEST).send().await.unwrap()
}

/// Asks every gateway for a model until it answers like this; fails when that takes longer than allowed.
async fn answers(scene: &Scene, model: &str, status: StatusCode) -> Vec<Response> {
    let (web, changed, mut answers) = (scene.client(), Instant::now(), Vec::new());
    for gateway in 0..scene.gateways() {
        answers.push(loop {
            let started = Instant::now();
            let answer = chat(scene, &web, gateway, model).await;
            if answer.status() == status {
                break answer;
            }
            let after = started - changed;
            assert!(after < ALLOWED, "{after:?} later gateway {gateway} answers {} for {model}", answer.status());
            sleep(POLL).await;
        });
    }
    answers
}

#[tokio::test]
async fn an_alias_and_a_thinking_model_are_served_and_a_removed_alias_is_not() {
    let mut scene = Scene::start().await;
    let model = scene.sample(Engine::Vllm).model.clone();
    answers(&scene, "words", StatusCode::NOT_FOUND).await;
    scene.admin(&["alias", "set", "--alias", "words", "--name", &model]).await;
    answers(&scene, "words", StatusCode::OK).await;
    for asked in ["words:THINKING".to_owned(), format!("{model}:THINKING")] {
        for answer in answers(&scene, &asked, StatusCode::OK).await {
            let body: Value = answer.json().await.unwrap();
            assert_eq!(body["model"], json!(model), "{asked}");
        }
    }
    scene.admin(&["alias", "remove", "--alias", "words"]).await;
    answers(&scene, "words", StatusCode::NOT_FOUND).await;
    answers(&scene, &model, StatusCode::OK).await;
}

#[tokio::test]
async fn a_chute_under_maintenance_is_refused_with_a_time_to_come_back_and_serves_again_after() {
    let mut scene = Scene::start().await;
    let (id, model) = (scene.sample(Engine::Vllm).id.to_string(), scene.sample(Engine::Vllm).model.clone());
    scene.admin(&["chute", "set", "--chute", &id, "--maintenance", "true"]).await;
    for answer in answers(&scene, &model, StatusCode::TOO_MANY_REQUESTS).await {
        let seconds: u64 = answer.headers()["retry-after"].to_str().unwrap().parse().unwrap();
        assert!(seconds >= 1);
        let body: Value = answer.json().await.unwrap();
        assert_eq!(body["detail"], "model is under maintenance");
        assert_eq!(body["error"]["code"], "maintenance");
    }
    scene.admin(&["chute", "set", "--chute", &id, "--maintenance", "false"]).await;
    answers(&scene, &model, StatusCode::OK).await;
}

/// Requests that an instance has taken.
async fn accepted(scene: &Scene, port: u16) -> u64 {
    scene.platform.miner.counters(port).await.unwrap().accepted
}

/// When the instance was last seen to take a request, from now until the time is over.
async fn last_taken(scene: &Scene, port: u16, until: Instant) -> Option<Instant> {
    let (mut last, mut taken) = (None, accepted(scene, port).await);
    while Instant::now() < until {
        sleep(POLL).await;
        let now = accepted(scene, port).await;
        if now > taken {
            (last, taken) = (Some(Instant::now()), now);
        }
    }
    last
}

/// Upstream defect C17: an instance that was removed went on being called from a cached list.
#[tokio::test]
async fn c17_an_added_instance_is_called_and_a_removed_one_never_again_within_a_second() {
    let (mut scene, user) = faults::scene().await;
    let (chute, miner) = (scene.sample(Engine::Vllm).id.to_string(), scene.miner().to_string());
    let instance = scene.sample(Engine::Vllm).instances[0].clone();
    let (mut id, port) = (instance.id.to_string(), instance.port.to_string());
    let load = Load::start(&scene, &user, CLIENTS, SEED);
    let (mut latest, mut slowest) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..Size::asked().pick(3, 30) {
        let before = accepted(&scene, instance.port).await;
        let deadline = Instant::now() + LONGEST;
        while accepted(&scene, instance.port).await < before + 3 {
            assert!(Instant::now() < deadline, "the instance is not in use");
            sleep(POLL).await;
        }
        scene.admin(&["instance", "remove", "--instance", &id]).await;
        let removed = Instant::now();
        let last = last_taken(&scene, instance.port, removed + ALLOWED + Duration::from_secs(1)).await;
        let after = last.map_or(Duration::ZERO, |last| last - removed);
        assert!(after < ALLOWED, "a removed instance was called after {after:?}");
        latest = latest.max(after);

        let before = accepted(&scene, instance.port).await;
        let place = ["instance", "add", "--chute", &chute, "--host", "127.0.0.1", "--port", &port];
        let owner = ["--miner-uid", "1", "--hotkey", &miner, "--key", &instance.key];
        id = scene.admin(&[&place[..], &owner[..]].concat()).await["instance_id"].as_str().unwrap().to_owned();
        let added = Instant::now();
        while accepted(&scene, instance.port).await == before {
            assert!(added.elapsed() < ALLOWED, "a new instance is not called");
            sleep(POLL).await;
        }
        slowest = slowest.max(added.elapsed());
    }
    let seen = load.stop().await;
    assert!(seen.iter().all(|call| call.end == End::Whole), "{seen:?}");
    screen::say(&format!("removed: last call after {latest:?}; added: first call after at most {slowest:?}"));
}

/// Snapshots that a gateway refused because too much was missing in them.
async fn refused(scene: &Scene, gateway: usize) -> bool {
    let url = format!("http://127.0.0.1:{}/metrics", scene.platform.gateways[gateway].internal_port);
    let metrics = scene.client().get(url).bearer_auth(&scene.platform.secrets.internal).timeout(LONGEST);
    let text = metrics.send().await.unwrap().error_for_status().unwrap().text().await.unwrap();
    text.lines().any(|line| line == "chutes_gateway_directory_refused_total{reason=\"shrunk\"} 1")
}

#[tokio::test]
async fn a_directory_without_most_chutes_is_refused_until_the_operator_insists() {
    let mut scene = Scene::start().await;
    let web = scene.client();
    let kept = scene.sample(Engine::Diffusion).id.to_string();
    let lost: Vec<String> = scene.platform.sample.chutes.iter().map(|chute| chute.id.to_string()).collect();
    let model = scene.sample(Engine::Vllm).model.clone();
    // Nobody publishes between one deletion and the next.
    scene.platform.control.processes()[0].freeze().unwrap();
    for id in lost.iter().filter(|id| **id != kept) {
        scene.admin(&["chute", "delete", "--chute", id]).await;
    }
    scene.platform.control.processes()[0].thaw().unwrap();
    for gateway in 0..scene.gateways() {
        let deadline = Instant::now() + LONGEST;
        while !refused(&scene, gateway).await {
            assert!(Instant::now() < deadline, "gateway {gateway} refuses nothing");
            sleep(POLL).await;
        }
    }
    let until = Instant::now() + 2 * ALLOWED;
    while Instant::now() < until {
        for gateway in 0..scene.gateways() {
            assert_eq!(chat(&scene, &web, gateway, &model).await.status(), StatusCode::OK);
        }
        sleep(POLL).await;
    }
    scene.admin(&["directory", "force"]).await;
    answers(&scene, &model, StatusCode::NOT_FOUND).await;
}
