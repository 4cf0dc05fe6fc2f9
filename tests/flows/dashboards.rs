//! A Prometheus that scrapes a platform under load: every panel has data, and the counters say what clients saw.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};
use stack::children::{Launch, run};
use stack::dashboard::{self, Dashboard};
use stack::miner::{Behaviour, Engine, Fault};
use stack::prometheus::Prometheus;
use stack::proof::Size;
use stack::screen;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::faults;
use crate::load::{End, Load, Seen};
use crate::scene::{Scene, User};

const LONGEST: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(250);
const SEED: u64 = 8;
/// Tokens of the answers in one piece.
const TOKENS: u64 = 7;
/// The hosts of calls, by their label in the metric.
const CALLS: &str = r#"chutes_gateway_requests_total{host=~"llm|embed|image|chute"}"#;

/// What one client of every kind of call got, by status class.
type Answers = BTreeMap<&'static str, u64>;

/// A request of the round that the mixed client goes.
struct Ask {
    url: String,
    body: Option<Value>,
    key: String,
}

async fn prometheus(scene: &Scene) -> Prometheus {
    let address = |url: String| url.trim_start_matches("http://").to_owned();
    let gateways = scene.platform.gateways.iter().map(|gateway| address(gateway.internal_url())).collect();
    let control = &scene.platform.control;
    let control = vec![address(control.internal_url()), address(control.worker_internal_url())];
    let (platform, targets) = (&scene.platform, [("gateway", gateways), ("control", control)]);
    let started = Prometheus::start(&platform.folder, &targets, &platform.secrets.internal, &platform.spawner);
    let prometheus = started.await.unwrap();
    eventually("all targets are scraped", async || {
        let up = prometheus.query("sum(up)").await.unwrap();
        up.first().is_some_and(|up| up.value == 4.0) && prometheus.unreachable().await.unwrap().is_empty()
    })
    .await;
    prometheus
}

async fn eventually(what: &str, happens: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + LONGEST;
    while !happens().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        sleep(POLL).await;
    }
}

/// The one number of an expression, 0 where there is no series.
async fn number(prometheus: &Prometheus, expression: &str) -> f64 {
    let found = prometheus.query(expression).await.unwrap();
    assert!(found.len() <= 1, "{expression}: {found:?}");
    found.first().map_or(0.0, |sample| sample.value)
}

/// Everything a gateway tells Prometheus.
async fn exposition(scene: &Scene, url: &str) -> String {
    let request = scene.client().get(format!("{url}/metrics")).bearer_auth(&scene.platform.secrets.internal);
    request.timeout(LONGEST).send().await.unwrap().error_for_status().unwrap().text().await.unwrap()
}

/// Waits until Prometheus has seen every request that the gateways have counted.
async fn wait_until_scraped(scene: &Scene, prometheus: &Prometheus) {
    eventually("prometheus has the newest counters", async || {
        let mut counted = 0.0;
        for gateway in &scene.platform.gateways {
            let text = exposition(scene, &gateway.internal_url()).await;
            let lines = text.lines().filter(|line| line.starts_with("chutes_gateway_requests_total{"));
            counted += lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum::<f64>();
        }
        number(prometheus, "sum(chutes_gateway_requests_total)").await == counted
            && number(prometheus, "sum(chutes_gateway_calls_in_flight)").await == 0.0
    })
    .await;
}

/// One call of each kind, good ones and bad ones.
fn round(scene: &Scene, user: &User, gateway: usize) -> Vec<Ask> {
    let model = |engine| scene.sample(engine).model.clone();
    let chat = json!({
        "model": model(Engine::Vllm), "max_tokens": TOKENS, "messages": [{"role": "user", "content": "Go on."}],
    });
    let ask = |host: &str, path: &str, body: &Value, key: &str| Ask {
        url: format!("{}{path}", scene.url_at(host, gateway)),
        body: Some(body.clone()),
        key: key.to_owned(),
    };
    let completions = "/v1/chat/completions";
    let embedding = json!({"model": model(Engine::Embedding), "input": ["one", "two"]});
    let image = json!({"model": model(Engine::Diffusion), "prompt": "a boat"});
    let unknown = json!({"model": "nobody/nothing", "messages": []});
    vec![
        ask("llm", completions, &chat, &user.key),
        ask(&scene.sample(Engine::Vllm).slug, completions, &chat, &user.key),
        ask("embed", "/v1/embeddings", &embedding, &user.key),
        ask("image", "/generate", &image, &user.key),
        ask("llm", completions, &chat, "cpk_wrong"),
        ask("llm", completions, &unknown, &user.key),
        ask("no-such-chute", completions, &chat, &user.key),
        Ask { url: format!("{}/ping", scene.url_at("api", gateway)), body: None, key: user.key.clone() },
    ]
}

/// Goes round after round over both gateways until told to stop; counts the answers of call hosts.
fn drive(scene: &Scene, user: &User, until: Instant) -> JoinHandle<Answers> {
    let asks: Vec<Ask> = (0..scene.gateways()).flat_map(|gateway| round(scene, user, gateway)).collect();
    let web = scene.client();
    tokio::spawn(async move {
        let mut answers = Answers::new();
        while Instant::now() < until {
            for Ask { url, body, key } in &asks {
                let request = match body {
                    Some(body) => web.post(url).json(body),
                    None => web.get(url),
                };
                let answer = request.bearer_auth(key).timeout(LONGEST).send().await.unwrap();
                let class = class(answer.status());
                answer.bytes().await.unwrap();
                if body.is_some() {
                    *answers.entry(class).or_default() += 1;
                }
            }
        }
        answers
    })
}

fn class(status: StatusCode) -> &'static str {
    match status.as_u16() / 100 {
        2 => "2xx",
        4 => "4xx",
        5 => "5xx",
        _ => panic!("nobody answers with {status}"),
    }
}

/// Asks what every panel asks until each answer is there, and finite.
async fn every_panel_has_data(prometheus: &Prometheus) -> usize {
    let dashboard = Dashboard::read(&dashboard::folder().unwrap().join("gateway.json")).unwrap();
    let mut asked = 0;
    for (panel, target) in dashboard.targets() {
        let (expression, deadline) = (target.substituted(), Instant::now() + LONGEST);
        loop {
            let found = prometheus.query(&expression).await.unwrap();
            if !found.is_empty() && found.iter().all(|sample| sample.value.is_finite()) {
                break;
            }
            assert!(Instant::now() < deadline, "{:?} {}: {expression}: {found:?}", panel.title, target.ref_id);
            sleep(POLL).await;
        }
        asked += 1;
    }
    asked
}

/// Prometheus' own judgement of names, units and help texts.
async fn lint(scene: &Scene) {
    let control = &scene.platform.control;
    for url in [scene.platform.gateways[0].internal_url(), control.internal_url(), control.worker_internal_url()] {
        let file = scene.platform.folder.join("metrics.txt");
        std::fs::write(&file, exposition(scene, &url).await).unwrap();
        let check = format!("/usr/bin/promtool check metrics <'{}'", file.display());
        run(&Launch::new("promtool", "bash").arguments(["-c", &check]), LONGEST).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_panel_shows_data_and_the_counters_say_what_clients_saw() {
    let (mut scene, user) = faults::scene().await;
    let prometheus = prometheus(&scene).await;
    wait_until_scraped(&scene, &prometheus).await;
    let text = scene.sample(Engine::Vllm).id.to_string();
    let counters = [
        format!("sum({CALLS})"),
        r#"sum(chutes_gateway_answers_total{status="2xx"})"#.to_owned(),
        r#"sum(chutes_gateway_answers_total{status="4xx"})"#.to_owned(),
        r#"sum(chutes_gateway_answers_total{status="5xx"})"#.to_owned(),
        format!("sum(chutes_gateway_chute_completion_tokens_total{{chute=\"{text}\"}})"),
    ];
    let mut before = Vec::new();
    for counter in &counters {
        before.push(number(&prometheus, counter).await);
    }

    let broken = Fault::Status { code: 500, detail: "out of memory".into() };
    let failing = Behaviour { fault: broken, faulty_calls: Some(3), ..Behaviour::default() };
    scene.behave(Engine::Embedding, &failing).await;
    let begun = Instant::now();
    let load = Load::start(&scene, &user, Size::asked().pick(4, 32), SEED);
    let mixed = drive(&scene, &user, begun + Duration::from_secs(Size::asked().pick(10, 120)));
    let asked = every_panel_has_data(&prometheus).await;
    let mixed = mixed.await.unwrap();
    let streams = load.stop().await;
    assert!(streams.iter().all(|call| call.end == End::Whole), "{streams:?}");

    wait_until_scraped(&scene, &prometheus).await;
    let (calls, tokens) = (
        streams.len() as u64 + mixed.values().sum::<u64>(),
        streams.iter().map(|Seen { tokens, .. }| tokens).sum::<u64>(),
    );
    let of = |class: &str| mixed.get(class).copied().unwrap_or_default();
    let driven = [calls, streams.len() as u64 + of("2xx"), of("4xx"), of("5xx")];
    let mut counted = Vec::new();
    for (counter, before) in counters.iter().zip(before) {
        counted.push(number(&prometheus, counter).await - before);
    }
    assert_eq!(counted[..4], driven.map(|count| count as f64), "{mixed:?}");
    // Each round has two chats in one piece at each gateway; rounds are whole.
    let rounds = mixed.values().sum::<u64>() / 7;
    assert_eq!(counted[4], (tokens + rounds * 2 * TOKENS) as f64);
    let series = number(&prometheus, r#"max(scrape_samples_scraped{job="gateway"})"#).await;
    screen::say(&format!(
        "{asked} questions of panels answered; {calls} calls in {:?}, as many counted; {series} series of a gateway",
        begun.elapsed()
    ));

    lint(&scene).await;
    let alerts = prometheus.alerts().await.unwrap();
    assert!(alerts.len() > 20, "{alerts:?}");
    let wrong: Vec<_> = alerts.iter().filter(|(_, (state, error))| state == "firing" || !error.is_empty()).collect();
    assert!(wrong.is_empty(), "a platform that is well wakes somebody: {wrong:?}");
    scene.platform.gateways[1].kill().unwrap();
    let wanted = Size::asked().pick("pending", "firing");
    eventually("somebody is told of a dead gateway", async || {
        prometheus.alerts().await.unwrap()["GatewayDown"].0 == wanted
    })
    .await;
}
