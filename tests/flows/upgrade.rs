//! While one gateway process replaces another and certificates change, no call fails and no stream is cut.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, ClientBuilder, Version};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use stack::certificates::Certificates;
use stack::children::Child;
use stack::miner::{Behaviour, Engine};
use stack::platform::DOMAIN;
use stack::proof::Size;
use stack::sample::Capacity;
use stack::{screen, web};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::load::{self, End, Seen};
use crate::scene::{Scene, User};
use crate::{books, faults};

const LONGEST: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);
/// Streams that begin at once.
const BEGINNING: usize = 32;
/// Streams on one connection of HTTP/2.
const SHARED: usize = 50;
/// Between two short calls of one caller.
const PAUSE: Duration = Duration::from_millis(100);
/// Tokens of a short call.
const SHORT: u64 = 3;
/// How long callers go on after the upgrade: idle connections are closed meanwhile.
const AFTER: Duration = Duration::from_secs(3);
const LINGER: Duration = Duration::from_secs(1);

/// What a run consists of.
struct Run {
    streams: usize,
    tokens: u64,
    tokens_per_second: f64,
    /// Callers of each of three kinds.
    callers: usize,
}

/// What all clients need.
#[derive(Clone)]
struct Target {
    url: String,
    key: String,
    model: String,
    /// Room for streams to begin.
    beginning: Arc<Semaphore>,
    /// The authorities of both certificates.
    trusted: [PathBuf; 2],
}

impl Target {
    fn builder(&self) -> ClientBuilder {
        web::builder(self.trusted.iter().map(PathBuf::as_path)).unwrap().connect_timeout(LONGEST)
    }

    async fn ask(&self, web: &Client) -> Seen {
        load::ask(web, &self.url, &self.key, &self.model, SHORT).await
    }
}

/// As many open files as the machine allows; the programs inherit it.
fn allow_many_files() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
}

async fn scene(run: &Run) -> (Scene, User) {
    allow_many_files();
    let instances = run.streams.div_ceil(200).max(1);
    let settings = [
        ("GATEWAY_MAX_CONCURRENT", "100000".to_owned()),
        ("GATEWAY_MAX_CONNECTIONS_PER_ADDRESS", "100000".to_owned()),
        // A machine with much else to do is no overload, and no slow client, here.
        ("GATEWAY_MAX_LAG_SECONDS", "60".to_owned()),
        ("GATEWAY_HEAD_SECONDS", "60".to_owned()),
        ("GATEWAY_LINGER_SECONDS", LINGER.as_secs().to_string()),
        ("GATEWAY_UPGRADE_DRAIN_SECONDS", "600".to_owned()),
    ];
    let mut scene = Scene::with(|options| {
        options.gateways = 1;
        options.text = Capacity { instances, concurrency: 256 };
        options.gateway_settings.extend(settings.map(|(name, value)| (name.to_owned(), value)));
    })
    .await;
    let user = scene.unlimited_user("load", &[]).await;
    faults::wait_until_known(&scene, 0, &user).await;
    (scene, user)
}

/// Long streams over both versions of HTTP, at work.
struct Streams {
    running: JoinSet<Seen>,
    begun: watch::Receiver<usize>,
}

impl Streams {
    fn start(target: &Target, run: &Run) -> Self {
        let (counter, begun) = watch::channel(0);
        let mut running = JoinSet::new();
        let http1 = target.builder().http1_only().build().unwrap();
        for _ in 0..run.streams / 2 {
            let (target, counter, web, tokens) = (target.clone(), counter.clone(), http1.clone(), run.tokens);
            running.spawn(async move { stream(&web, &target, Version::HTTP_11, tokens, &counter).await });
        }
        let mut left = run.streams - run.streams / 2;
        while left > 0 {
            let web = target.builder().build().unwrap();
            for _ in 0..left.min(SHARED) {
                let (target, counter, web, tokens) = (target.clone(), counter.clone(), web.clone(), run.tokens);
                running.spawn(async move { stream(&web, &target, Version::HTTP_2, tokens, &counter).await });
            }
            left = left.saturating_sub(SHARED);
        }
        Self { running, begun }
    }

    async fn all_begun(&mut self, run: &Run) {
        let all = self.begun.wait_for(|begun| *begun == run.streams);
        tokio::time::timeout(4 * LONGEST, all).await.expect("all streams begin").unwrap();
    }
}

/// One stream; counted once it has begun.
async fn stream(web: &Client, target: &Target, version: Version, tokens: u64, begun: &watch::Sender<usize>) -> Seen {
    let body = json!({
        "model": target.model, "stream": true, "max_tokens": tokens,
        "messages": [{"role": "user", "content": "Go on."}],
    });
    let url = format!("{}/v1/chat/completions", target.url);
    let mut permit = Some(target.beginning.acquire().await.unwrap());
    let started = Instant::now();
    let answer = web.post(url).bearer_auth(&target.key).json(&body).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.version()), (200, version));
    let call = load::call_of(&answer);
    let tell = |tokens| {
        if tokens > 0 && permit.take().is_some() {
            begun.send_modify(|begun| *begun += 1);
        }
    };
    let (tokens, end) = load::read_telling(&mut answer.bytes_stream(), u64::MAX, tell).await;
    Seen { call, tokens, end, ..Seen::nothing(started) }
}

/// Short calls without end: on new connections, and on kept ones of both versions of HTTP.
struct Callers {
    stop: watch::Sender<bool>,
    running: JoinSet<Vec<Seen>>,
}

impl Callers {
    fn start(target: &Target, run: &Run) -> Self {
        let stop = watch::Sender::new(false);
        let mut running = JoinSet::new();
        let new_each_time: fn(&Target) -> Client = |target| target.builder().build().unwrap();
        for _ in 0..run.callers {
            let http1 = target.builder().http1_only().build().unwrap();
            let http2 = target.builder().build().unwrap();
            for kept in [None, Some(http1), Some(http2)] {
                let (target, stopping) = (target.clone(), stop.subscribe());
                running.spawn(async move {
                    let mut seen = Vec::new();
                    while !*stopping.borrow() {
                        let web = kept.clone().unwrap_or_else(|| new_each_time(&target));
                        seen.push(target.ask(&web).await);
                        sleep(PAUSE).await;
                    }
                    seen
                });
            }
        }
        Self { stop, running }
    }

    /// The calls of each.
    async fn stop(self) -> Vec<Vec<Seen>> {
        self.stop.send_replace(true);
        self.running.join_all().await
    }
}

/// Puts another certificate into the folder of the gateways.
fn put(scene: &Scene, certificates: &Path) {
    for kind in ["key", "crt"] {
        let name = format!("_.{DOMAIN}.{kind}");
        std::fs::copy(certificates.join(&name), scene.platform.certificates.folder.join(&name)).unwrap();
    }
}

/// Until a new handshake with somebody who trusts only this authority succeeds; how long that took.
async fn until_served(target: &Target, authority: &Path) -> Duration {
    let begun = Instant::now();
    while !is_served(target, authority).await {
        assert!(begun.elapsed() < LONGEST, "the certificate is not served");
        sleep(POLL).await;
    }
    begun.elapsed()
}

async fn is_served(target: &Target, authority: &Path) -> bool {
    let web = web::builder([authority]).unwrap().connect_timeout(LONGEST).build().unwrap();
    web.get(format!("{}/v1/models", target.url)).send().await.is_ok_and(|answer| answer.status().is_success())
}

/// Until the gateway has logged these words so many times.
async fn until_logged(scene: &Scene, words: &str, times: usize) {
    let (log, deadline) = (scene.platform.spawner.log("gateway-0"), Instant::now() + LONGEST);
    while std::fs::read_to_string(&log).unwrap().matches(words).count() < times {
        assert!(Instant::now() < deadline, "not logged: {words}");
        sleep(POLL).await;
    }
}

/// Until a process has ended by itself; how long that took.
async fn until_ended(process: &mut Child) -> Duration {
    let begun = Instant::now();
    loop {
        if let Some(status) = process.ended().unwrap() {
            assert!(status.success(), "{status}");
            return begun.elapsed();
        }
        assert!(begun.elapsed() < 2 * LONGEST, "the process that was replaced does not end");
        sleep(POLL).await;
    }
}

/// In its small size it takes the half minute that its streams run, because everything happens while they do.
#[tokio::test]
async fn an_upgrade_and_changed_certificates_under_load_fail_no_call_and_cut_no_stream() {
    let run = Run {
        streams: Size::asked().pick(24, 1000),
        tokens: Size::asked().pick(300, 100),
        tokens_per_second: Size::asked().pick(10.0, 0.3),
        callers: Size::asked().pick(1, 4),
    };
    let (mut scene, user) = scene(&run).await;
    let behaviour = Behaviour { tokens_per_second: run.tokens_per_second, ..Behaviour::default() };
    scene.behave(Engine::Vllm, &behaviour).await;
    let folder = tempfile::tempdir().unwrap();
    let next = Certificates::of_folder(folder.path(), DOMAIN).unwrap();
    let target = Target {
        url: scene.url("llm"),
        key: user.key.clone(),
        model: scene.sample(Engine::Vllm).model.clone(),
        beginning: Arc::new(Semaphore::new(BEGINNING)),
        trusted: [scene.platform.certificates.authority.clone(), next.authority.clone()],
    };
    let mut streams = Streams::start(&target, &run);
    streams.all_begun(&run).await;
    // The calls that come now are quick; streams at work keep their pace.
    scene.behave(Engine::Vllm, &Behaviour::default()).await;
    let callers = Callers::start(&target, &run);
    screen::say(&format!("{} streams run, {} callers call", run.streams, 3 * run.callers));

    put(&scene, &next.folder);
    let took = until_served(&target, &next.authority).await;
    screen::say(&format!("a changed certificate was served after {took:.1?}"));
    let certificate = scene.platform.certificates.folder.join(format!("_.{DOMAIN}.crt"));
    std::fs::write(&certificate, "no certificate").unwrap();
    until_logged(&scene, "keeping the last good ones", 1).await;
    assert!(is_served(&target, &next.authority).await, "the last good certificate stays");

    let spawner = &scene.platform.spawner;
    let refused = scene.platform.gateways[0].upgrade(spawner).await;
    assert!(refused.is_err(), "a gateway without a certificate does not take over");
    assert!(is_served(&target, &next.authority).await, "the one that runs goes on");
    put(&scene, &next.folder);
    let begun = Instant::now();
    let mut old = scene.platform.gateways[0].upgrade(spawner).await.unwrap();
    let taken_over = Instant::now();
    screen::say(&format!("the next process took over {:.1?} after it was started", taken_over - begun));
    sleep(AFTER).await;
    assert!(old.ended().unwrap().is_none(), "two processes run while streams do");
    assert!(streams.running.try_join_next().is_none(), "all streams ran during the upgrade");

    let short = callers.stop().await;
    let meanwhile = |call: &Seen| (begun..taken_over).contains(&call.started);
    let during = short.iter().filter(|calls| calls.iter().any(meanwhile)).count();
    screen::say(&format!("{during} of {} callers called while the next process took over", short.len()));
    assert!(during >= Size::asked().pick(1, short.len()), "too few calls during the upgrade");
    let short = short.concat();
    let long = streams.running.join_all().await;
    let took = until_ended(&mut old).await;
    screen::say(&format!("the old process ended {took:.1?} after its last stream"));
    faults::show("long streams", &long);
    faults::show("short calls", &short);
    assert!(long.iter().all(|call| (call.end, call.tokens) == (End::Whole, run.tokens)), "a stream was cut");
    assert!(short.iter().any(|call| call.started < begun), "no short call came before the upgrade");
    assert!(short.iter().any(|call| call.started > taken_over), "no short call came after the upgrade");
    let failed: Vec<&Seen> = short.iter().filter(|call| (call.end, call.tokens) != (End::Whole, SHORT)).collect();
    assert!(failed.is_empty(), "{} calls failed: {failed:?}", failed.len());
    scene.platform.certificates.authority.clone_from(&next.authority);
    books::balance(&mut scene, &user, &[long, short].concat()).await;
}
