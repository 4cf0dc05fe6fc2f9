//! HTTP/2 over TLS, the pairing of names on one connection, and images over plain HTTP, as curl sees them.

use std::time::Duration;

use serde_json::{Value, json};
use stack::children::{Launch, run};
use stack::miner::{Behaviour, Engine};
use stack::platform::DOMAIN;

use crate::records::only_attempt;
use crate::scene::Scene;

const LONGEST: Duration = Duration::from_secs(40);

/// One answer, as curl tells it.
struct Seen {
    body: Vec<u8>,
    head: String,
    facts: Value,
    talk: String,
}

impl Seen {
    fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// Makes requests one after the other in one curl, so that a connection may be used again.
async fn curl(scene: &Scene, requests: &[Vec<String>]) -> Vec<Seen> {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: String| folder.path().join(name).display().to_string();
    let mut launch = Launch::new("curl", "curl").arguments(["--verbose", "--stderr"]).arguments([file("talk".into())]);
    for (number, request) in requests.iter().enumerate() {
        let separator = if number == 0 { &[][..] } else { &["--next"][..] };
        launch = launch.arguments(separator.iter().copied());
        launch = launch.arguments(["--silent", "--cacert"]).arguments([scene.authority()]);
        launch = launch.arguments(["--output".to_owned(), file(format!("body-{number}"))]);
        launch = launch.arguments(["--dump-header".to_owned(), file(format!("head-{number}"))]);
        launch = launch.arguments(["--write-out", "%{json}\n"]).arguments(request.iter().cloned());
    }
    let facts = run(&launch, LONGEST).await.unwrap();
    let talk = std::fs::read_to_string(file("talk".into())).unwrap();
    let read = |(number, line): (usize, &str)| Seen {
        body: std::fs::read(file(format!("body-{number}"))).unwrap(),
        head: std::fs::read_to_string(file(format!("head-{number}"))).unwrap(),
        facts: serde_json::from_str(line).unwrap(),
        talk: talk.clone(),
    };
    facts.lines().enumerate().map(read).collect()
}

fn words<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_owned).into()
}

/// A POST with the sample user's key.
fn post(scene: &Scene, url: &str, body: &Value) -> Vec<String> {
    let authorization = format!("Authorization: Bearer {}", scene.sample_key());
    let mut request = words(["--header", &authorization, "--header", "Content-Type: application/json"]);
    request.extend(words(["--data", &body.to_string(), url]));
    request
}

fn chat(scene: &Scene, label: &str, stream: bool) -> Vec<String> {
    let model = &scene.sample(Engine::Vllm).model;
    let messages = json!([{"role": "user", "content": "Hello"}]);
    let body = json!({"model": model, "messages": messages, "max_tokens": 25, "stream": stream});
    post(scene, &format!("{}/v1/chat/completions", scene.url(label)), &body)
}

#[tokio::test]
async fn curl_speaks_http2_over_tls_for_an_answer_in_one_piece_and_for_a_stream() {
    let scene = Scene::start().await;
    let slow = Behaviour { tokens_per_second: 25.0, ..Behaviour::default() };
    scene.behave(Engine::Vllm, &slow).await;
    let http2 = |mut request: Vec<String>| {
        request.push("--http2".into());
        request
    };
    let seen = curl(&scene, &[http2(chat(&scene, "llm", false)), http2(chat(&scene, "llm", true))]).await;
    for answer in &seen {
        assert_eq!(answer.facts["http_version"], "2");
        assert_eq!(answer.facts["response_code"], 200);
        assert!(answer.talk.contains("ALPN: server accepted h2"));
    }
    let whole = seen[0].json();
    let stream = seen[1].text();
    let events: Vec<&str> = stream.split_terminator("\n\n").collect();
    assert!(events.iter().all(|event| event.starts_with("data: ")), "{stream}");
    assert_eq!(events.last().unwrap(), &"data: [DONE]");
    let told: String = events.iter().filter_map(|event| content(event)).collect();
    assert_eq!(json!(told), whole["choices"][0]["message"]["content"]);
    // 25 tokens take a second: what came in one piece at the end would not be a stream.
    let (first, last) = (&seen[1].facts["time_starttransfer"], &seen[1].facts["time_total"]);
    assert!(last.as_f64().unwrap() - first.as_f64().unwrap() > 0.5, "first byte {first} s, last {last} s");
    for answer in &seen {
        let invocation = json!(answer.header("x-chutes-invocationid").unwrap());
        assert_eq!(only_attempt(&scene.db, &invocation).await.count("ot"), 25);
    }
}

#[tokio::test]
async fn two_hosts_share_one_http2_connection_but_a_name_of_another_service_is_misdirected() {
    let scene = Scene::start().await;
    let slug = scene.sample(Engine::Vllm).slug.clone();
    let named = |host: &str| {
        let mut request = chat(&scene, "llm", false);
        request.extend(words(["--http2", "--header", &format!("Host: {host}")]));
        request
    };
    let own = format!("{slug}.{DOMAIN}");
    let seen = curl(&scene, &[named(&format!("llm.{DOMAIN}")), named(&own), named("example.com")]).await;
    let connects: Vec<&Value> = seen.iter().map(|answer| &answer.facts["num_connects"]).collect();
    assert_eq!(connects, [&json!(1), &json!(0), &json!(0)]);
    let statuses: Vec<&Value> = seen.iter().map(|answer| &answer.facts["response_code"]).collect();
    assert_eq!(statuses, [&json!(200), &json!(200), &json!(421)]);
    assert_eq!(seen[0].json()["choices"], seen[1].json()["choices"]);
    assert_eq!(seen[2].json()["error"]["code"], "misdirected_request");
}

#[tokio::test]
async fn the_image_host_answers_a_prompt_with_a_jpeg_over_plain_http_and_over_tls() {
    let scene = Scene::start().await;
    let body = json!({"model": scene.sample(Engine::Diffusion).model, "prompt": "a lighthouse"});
    let plain = format!("{}/generate", scene.plain_url("image"));
    let tls = format!("{}/generate", scene.url("image"));
    let seen = curl(&scene, &[post(&scene, &plain, &body), post(&scene, &tls, &body)]).await;
    for answer in &seen {
        assert_eq!(answer.facts["response_code"], 200, "{}", String::from_utf8_lossy(&answer.body));
        assert_eq!(answer.header("content-type"), Some("image/jpeg"));
        assert!(answer.body.starts_with(&[0xff, 0xd8, 0xff]) && answer.body.ends_with(&[0xff, 0xd9]));
        let invocation = json!(answer.header("x-chutes-invocationid").unwrap());
        let attempt = only_attempt(&scene.db, &invocation).await;
        assert_eq!((attempt.outcome.as_str(), attempt.delivered), ("finished", true));
        assert_eq!(attempt.count("steps"), 25);
    }
    assert_eq!(seen[0].body, seen[1].body);
}

/// The text of one event of a chat stream.
fn content(event: &str) -> Option<String> {
    let chunk: Value = serde_json::from_str(event.strip_prefix("data: ")?).ok()?;
    chunk.pointer("/choices/0/delta/content")?.as_str().map(str::to_owned)
}
