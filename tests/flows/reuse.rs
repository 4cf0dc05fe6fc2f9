//! Under mixed load most requests to instances go over connections that were there already.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use reqwest::Client;
use serde_json::{Value, json};
use stack::miner::{Behaviour, Engine, Fault};
use stack::{screen, web};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::faults;
use crate::scene::Scene;

const CLIENTS: u64 = 8;
const CALLS: usize = 40;
const LONGEST: Duration = Duration::from_secs(20);
/// Errors that each instance answers with, in its own words.
const ERRORS: u32 = 10;

/// One call: a stream, a text in one piece, or an embedding.
async fn call(web: &Client, key: &str, [llm, embed]: &[String; 2], [text, vectors]: &[String; 2], kind: u32) -> u16 {
    let messages = json!([{"role": "user", "content": "Go on."}]);
    let (url, body): (String, Value) = match kind {
        0 | 1 => (
            format!("{llm}/v1/chat/completions"),
            json!({"model": text, "messages": messages, "max_tokens": 10, "stream": kind == 0}),
        ),
        _ => (format!("{embed}/v1/embeddings"), json!({"model": vectors, "input": "a word"})),
    };
    let answer = web.post(url).bearer_auth(key).json(&body).timeout(LONGEST).send().await.unwrap();
    let status = answer.status().as_u16();
    answer.bytes().await.unwrap();
    status
}

/// Requests of a gateway to instances by their connection.
async fn requests(scene: &Scene, connection: &str) -> f64 {
    let url = format!("{}/metrics", scene.platform.gateways[0].internal_url());
    let request = web::client(None).unwrap().get(url).bearer_auth(&scene.platform.secrets.internal);
    let text = request.send().await.unwrap().text().await.unwrap();
    let name = format!("chutes_gateway_instance_requests_total{{connection=\"{connection}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&name)).map_or(0.0, |number| number.parse().unwrap())
}

#[tokio::test]
async fn mixed_calls_go_over_connections_that_are_there_already() {
    let mut scene = Scene::with(|options| {
        options.gateways = 1;
        // A machine with much else to do is no overload here.
        options.gateway_settings.push(("GATEWAY_MAX_LAG_SECONDS".into(), "60".into()));
    })
    .await;
    let user = scene.unlimited_user("load", &[]).await;
    faults::wait_until_known(&scene, 0, &user).await;
    let fault = Fault::Status { code: 400, detail: "no".into() };
    let failing = Behaviour { fault, faulty_calls: Some(ERRORS), ..Behaviour::default() };
    scene.behave(Engine::Vllm, &failing).await;
    let urls = [scene.url("llm"), scene.url("embed")];
    let models = [Engine::Vllm, Engine::Embedding].map(|engine| scene.sample(engine).model.clone());
    let before = [requests(&scene, "opened").await, requests(&scene, "kept").await];
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let (web, key, urls, models) = (scene.client(), user.key.clone(), urls.clone(), models.clone());
        let mut choice = StdRng::seed_from_u64(number);
        clients.spawn(async move {
            let mut statuses = Vec::new();
            for _ in 0..CALLS {
                statuses.push(call(&web, &key, &urls, &models, choice.random_range(0..3)).await);
                sleep(Duration::from_millis(choice.random_range(0..100))).await;
            }
            statuses
        });
    }
    let statuses = clients.join_all().await.concat();
    let errors = statuses.iter().filter(|status| **status == 400).count();
    assert!(errors > 0 && statuses.iter().all(|status| [200, 400].contains(status)), "{statuses:?}");
    let opened = requests(&scene, "opened").await - before[0];
    let kept = requests(&scene, "kept").await - before[1];
    let reopened = requests(&scene, "reopened").await;
    let share = kept / (opened + kept + reopened);
    screen::say(&format!(
        "{} calls, {errors} of them errors: {kept} requests over kept connections, {opened} over new ones, {reopened} \
         over new ones because the kept one was closed: {:.1} % kept",
        statuses.len(),
        share * 100.0
    ));
    // At most one connection per client and instance is opened while nobody is idle for long.
    assert!(share > 0.7, "only {share} of the requests went over kept connections");
}
