//! A Prometheus that scrapes a platform under load: every panel has data, and the counters say what clients saw.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use stack::children::{Launch, run};
use stack::dashboard::{self, Dashboard};
use stack::miner::{Behaviour, Engine, Fault};
use stack::prometheus::Prometheus;
use stack::proof::Size;
use stack::screen;
use tokio::time::{Instant, sleep};

use crate::faults;
use crate::load::{End, Load, Seen};
use crate::scene::{Scene, User};

const LONGEST: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(250);
const SEED: u64 = 8;
/// Tokens of the answers in one piece.
const TOKENS: u64 = 7;
/// The hosts of calls, by their label in the metric.
const CALLS: &str = r#"chutes_gateway_requests_total{host=~"llm|embed|image|chute"}"#;

/// What clients of call hosts got.
#[derive(Default)]
struct Got {
    /// Answers by status class.
    answers: BTreeMap<&'static str, u64>,
    /// Completion tokens of the text chute.
    tokens: u64,
}

/// A request of the round that the mixed client goes.
struct Ask {
    url: String,
    body: Option<Value>,
    key: String,
    /// Completion tokens of the text chute, if it is answered.
    tokens: u64,
}

impl Got {
    fn answer(&mut self, status: u16) {
        let class = match status / 100 {
            2 => "2xx",
            4 => "4xx",
            5 => "5xx",
            _ => panic!("nobody answers with {status}"),
        };
        *self.answers.entry(class).or_default() += 1;
    }

    /// Adds what clients of streams got: whole ones, or refusals of a machine that has too much to do.
    fn add(&mut self, streams: &[Seen]) {
        for stream in streams {
            match stream.end {
                End::Whole => self.answer(200),
                End::Refused(status) => self.answer(status),
                End::Told | End::Cut | End::Nothing => panic!("a stream was not answered: {stream:?}"),
            }
            self.tokens += stream.tokens;
        }
    }

    fn of(&self, class: &str) -> u64 {
        self.answers.get(class).copied().unwrap_or_default()
    }
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
    let ask = |host: &str, path: &str, body: &Value, key: &str, tokens: u64| Ask {
        url: format!("{}{path}", scene.url_at(host, gateway)),
        body: Some(body.clone()),
        key: key.to_owned(),
        tokens,
    };
    let completions = "/v1/chat/completions";
    let embedding = json!({"model": model(Engine::Embedding), "input": ["one", "two"]});
    let unknown = json!({"model": "nobody/nothing", "messages": []});
    vec![
        ask("llm", completions, &chat, &user.key, TOKENS),
        ask(&scene.sample(Engine::Vllm).slug, completions, &chat, &user.key, TOKENS),
        ask("embed", "/v1/embeddings", &embedding, &user.key, 0),
        ask("image", "/generate", &image(scene), &user.key, 0),
        ask("llm", completions, &chat, "cpk_wrong", 0),
        ask("llm", completions, &unknown, &user.key, 0),
        ask("no-such-chute", completions, &chat, &user.key, 0),
        Ask { url: format!("{}/ping", scene.url_at("api", gateway)), body: None, key: user.key.clone(), tokens: 0 },
    ]
}

fn image(scene: &Scene) -> Value {
    json!({"model": scene.sample(Engine::Diffusion).model, "prompt": "a boat"})
}

/// Goes round after round over both gateways until it is time; counts the answers of call hosts.
async fn drive(scene: &Scene, user: &User, until: Instant) -> Got {
    let asks: Vec<Ask> = (0..scene.gateways()).flat_map(|gateway| round(scene, user, gateway)).collect();
    let (web, mut got) = (scene.client(), Got::default());
    while Instant::now() < until {
        for Ask { url, body, key, tokens } in &asks {
            let request = match body {
                Some(body) => web.post(url).json(body),
                None => web.get(url),
            };
            let answer = request.bearer_auth(key).timeout(LONGEST).send().await.unwrap();
            let status = answer.status();
            answer.bytes().await.unwrap();
            if body.is_some() {
                got.answer(status.as_u16());
                got.tokens += if status.is_success() { *tokens } else { 0 };
            }
        }
    }
    got
}

/// A call whose client leaves before there is an answer.
async fn leave(scene: &Scene, user: &User) {
    let hanging = Behaviour { fault: Fault::Hang, ..Behaviour::default() };
    scene.behave(Engine::Diffusion, &hanging).await;
    let request = scene.client().post(format!("{}/generate", scene.url("image"))).bearer_auth(&user.key);
    let answer = request.json(&image(scene)).timeout(Duration::from_secs(1)).send().await;
    assert!(answer.is_err_and(|error| error.is_timeout()));
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

/// What Prometheus must have counted, and how much more that is than before.
struct Counted {
    expressions: Vec<String>,
    before: Vec<f64>,
}

impl Counted {
    async fn begin(scene: &Scene, prometheus: &Prometheus) -> Self {
        wait_until_scraped(scene, prometheus).await;
        let text = scene.sample(Engine::Vllm).id.to_string();
        let answers = |class: &str| format!("sum(chutes_gateway_answers_total{{status=\"{class}\"}})");
        let mut counted = Self {
            expressions: vec![
                format!("sum({CALLS})"),
                answers("2xx"),
                answers("4xx"),
                answers("5xx"),
                "sum(chutes_gateway_clients_left_total)".to_owned(),
                format!("sum(chutes_gateway_chute_completion_tokens_total{{chute=\"{text}\"}})"),
            ],
            before: Vec::new(),
        };
        counted.before = counted.now(prometheus).await;
        counted
    }

    async fn now(&self, prometheus: &Prometheus) -> Vec<f64> {
        let mut now = Vec::new();
        for expression in &self.expressions {
            now.push(number(prometheus, expression).await);
        }
        now
    }

    async fn since(&self, scene: &Scene, prometheus: &Prometheus) -> Vec<f64> {
        wait_until_scraped(scene, prometheus).await;
        self.now(prometheus).await.iter().zip(&self.before).map(|(now, before)| now - before).collect()
    }
}

async fn the_certificates_expiry_is_known(prometheus: &Prometheus) {
    let expiry = number(prometheus, "min(chutes_gateway_certificate_expiry_timestamp_seconds)").await;
    let written = chrono::NaiveDate::from_ymd_opt(2045, 1, 1).unwrap().and_time(chrono::NaiveTime::MIN).and_utc();
    assert_eq!(expiry, written.timestamp() as f64);
}

#[tokio::test]
async fn every_panel_shows_data_and_the_counters_say_what_clients_saw() {
    let (mut scene, user) = faults::scene().await;
    let prometheus = prometheus(&scene).await;
    let counted = Counted::begin(&scene, &prometheus).await;
    let broken = Fault::Status { code: 500, detail: "out of memory".into() };
    let failing = Behaviour { fault: broken, faulty_calls: Some(3), ..Behaviour::default() };
    scene.behave(Engine::Embedding, &failing).await;
    let begun = Instant::now();
    let load = Load::start(&scene, &user, Size::asked().pick(4, 32), SEED);
    let until = begun + Duration::from_secs(Size::asked().pick(10, 120));
    let (asked, mut got) = tokio::join!(every_panel_has_data(&prometheus), drive(&scene, &user, until));
    got.add(&load.stop().await);
    leave(&scene, &user).await;

    let answered: u64 = got.answers.values().sum();
    let driven = [answered + 1, got.of("2xx"), got.of("4xx"), got.of("5xx"), 1, got.tokens];
    assert_eq!(counted.since(&scene, &prometheus).await, driven.map(|count| count as f64));
    assert!(got.of("5xx") > 0, "no call failed");
    let series = number(&prometheus, r#"max(scrape_samples_scraped{job="gateway"})"#).await;
    screen::say(&format!(
        "{asked} questions of panels answered; {} calls in {:?} and {} tokens, as many counted; {series} series of a gateway",
        answered + 1,
        begun.elapsed(),
        got.tokens,
    ));
    the_certificates_expiry_is_known(&prometheus).await;
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
