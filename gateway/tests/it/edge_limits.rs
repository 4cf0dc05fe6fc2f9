//! What clients may take of the edge before anybody asks who they are, through the real executable.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::{Raw, chat, request};
use crate::frames::tls;
use crate::instance::{Act, Scripted};
use crate::platform::{DOMAIN, Platform, Wishes};

const OPEN: &str = "chutes_gateway_connections";

async fn platform(settings: &[&str]) -> Platform {
    Platform::start(&[], wishes(settings)).await
}

fn wishes(settings: &[&str]) -> Wishes {
    Wishes { settings: settings.iter().map(|setting| (*setting).to_owned()).collect(), ..Wishes::default() }
}

fn refused(reason: &str) -> String {
    format!("chutes_gateway_refused_total{{reason=\"{reason}\"}}")
}

/// A request that needs no credential, with these fields more.
fn models(more: &str) -> String {
    format!("GET /v1/models HTTP/1.1\r\nHost: llm.{DOMAIN}\r\n{more}\r\n")
}

/// So many fields, of so many bytes each.
fn padding(fields: usize, bytes: usize) -> String {
    (0..fields).map(|number| format!("X-{number}: {}\r\n", "x".repeat(bytes))).collect()
}

/// Status and code of the answer to these bytes, if one comes.
async fn told(platform: &Platform, bytes: &[u8]) -> (u16, Option<String>) {
    let mut raw = Raw::connect(platform).await;
    raw.send(bytes).await;
    let got = raw.answer().await;
    (got.status, got.json()["error"]["code"].as_str().map(str::to_owned))
}

#[tokio::test]
async fn a_head_of_more_than_32_kib_or_100_fields_is_431() {
    let platform = platform(&[]).await;
    let too_large = (431, Some("head_too_large".to_owned()));
    for (fields, bytes, expected) in [
        (99, 0, (200, None)),
        (100, 0, too_large.clone()),
        (1000, 0, too_large.clone()),
        (30, 1000, (200, None)),
        (33, 1000, too_large.clone()),
        (1, 40_000, too_large.clone()),
        (1, 2_000_000, too_large),
    ] {
        let got = told(&platform, models(&padding(fields, bytes)).as_bytes()).await;
        assert_eq!(got, expected, "{fields} fields of {bytes} bytes");
    }
    assert_eq!(platform.metric(&refused("large_head")).await, 5.0);
}

#[tokio::test]
async fn the_size_of_a_head_is_a_setting() {
    let platform = platform(&["--max-head=2000", "--max-fields=5"]).await;
    for (fields, bytes, status) in [(4, 10, 200), (5, 10, 431), (1, 1800, 200), (1, 2000, 431)] {
        assert_eq!(told(&platform, models(&padding(fields, bytes)).as_bytes()).await.0, status, "{fields} x {bytes}");
    }
}

#[tokio::test]
async fn a_large_head_that_follows_another_request_at_once_is_431_too() {
    let scripted = Scripted::start([Act::Json("1".into())]).await;
    let platform = Platform::start(&[&scripted], Wishes::default()).await;
    // More fields than the framework reads, it finds itself where it has them all before they pass by here.
    for (fields, bytes, status) in [(120, 0, 431), (1, 40_000, 431), (1000, 0, 400)] {
        let mut raw = Raw::connect(&platform).await;
        let first = request(&platform, "POST", "own-chute", "/run", "{}");
        raw.send(&[&first, models(&padding(fields, bytes)).as_bytes()].concat()).await;
        assert_eq!(raw.answer().await.status, 200);
        assert_eq!(raw.answer().await.status, status, "{fields} x {bytes}");
    }
}

#[tokio::test]
async fn a_large_head_over_http2_is_431() {
    let platform = platform(&[]).await;
    let root = reqwest::Certificate::from_pem(platform.authority.as_bytes()).unwrap();
    let host = format!("llm.{DOMAIN}");
    let client = reqwest::Client::builder().add_root_certificate(root).http2_prior_knowledge();
    let client = client.resolve(&host, ([127, 0, 0, 1], platform.https).into()).build().unwrap();
    for (fields, bytes, status) in [(50, 10, 200), (120, 0, 431), (20, 2000, 431)] {
        let mut asked = client.get(format!("https://{host}:{}/v1/models", platform.https));
        for number in 0..fields {
            asked = asked.header(format!("x-{number}"), "x".repeat(bytes));
        }
        assert_eq!(asked.send().await.unwrap().status(), status, "{fields} fields of {bytes} bytes");
    }
}

#[tokio::test]
async fn a_head_that_trickles_is_408_however_it_trickles() {
    let platform = platform(&["--head-within=1"]).await;
    let mut raw = Raw::connect(&platform).await;
    // The first request is there at once, the second one trickles.
    for trickles in [false, true] {
        let started = Instant::now();
        raw.send(b"GET /v1/models HTTP/1.1\r\nHost: llm.chutes.localhost\r\nX-Slow: ").await;
        while trickles && !raw.has_answer() {
            assert!(started.elapsed() < Duration::from_secs(20), "the head goes on for ever");
            assert!(raw.try_send(b"x").await);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        if !trickles {
            raw.send(b"no\r\n\r\n").await;
            assert_eq!(raw.answer().await.status, 200);
            continue;
        }
        assert!(started.elapsed() >= Duration::from_secs(1));
        let got = raw.answer().await;
        assert_eq!((got.status, got.json()["error"]["code"].as_str()), (408, Some("head_timeout")));
        assert!(raw.closes().await);
    }
    assert_eq!(platform.metric(&refused("slow_head")).await, 1.0);
}

#[tokio::test]
async fn a_head_that_begins_behind_another_request_has_no_more_time() {
    let scripted = Scripted::start([Act::Json("1".into())]).await;
    let platform = Platform::start(&[&scripted], wishes(&["--head-within=1", "--keep-alive=60"])).await;
    let post = request(&platform, "POST", "own-chute", "/run", "{\"a\":1}");
    for (number, before) in
        [vec![models("").into_bytes()], vec![post.clone()], vec![post.clone(), post]].iter().enumerate()
    {
        let mut raw = Raw::connect(&platform).await;
        raw.send(&[before.concat().as_slice(), b"GET /v1/models HTTP/1.1\r\nHost: l"].concat()).await;
        for _ in before {
            assert_eq!(raw.answer().await.status, 200);
        }
        let answered = Instant::now();
        let got = raw.answer().await;
        assert!(answered.elapsed() < Duration::from_secs(10), "case {number}: after {:?}", answered.elapsed());
        assert_eq!((got.status, got.json()["error"]["code"].as_str()), (408, Some("head_timeout")), "case {number}");
        assert!(raw.closes().await);
    }
    assert_eq!(platform.metric(&refused("slow_head")).await, 3.0);
}

#[tokio::test]
async fn a_client_that_has_sent_whole_requests_alone_may_be_silent_for_longer_than_a_head_may_take() {
    let scripted = Scripted::start([Act::Json("1".into())]).await;
    let platform = Platform::start(&[&scripted], wishes(&["--head-within=0.5", "--keep-alive=60"])).await;
    let post = request(&platform, "POST", "own-chute", "/run", "{\"a\":1}");
    let mut raw = Raw::connect(&platform).await;
    let list = models("").into_bytes();
    for (whole, answers) in [(list.clone(), 1), (post.clone(), 1), ([post.clone(), post].concat(), 2), (list, 1)] {
        raw.send(&whole).await;
        for _ in 0..answers {
            assert_eq!(raw.answer().await.status, 200);
        }
        tokio::time::sleep(Duration::from_millis(800)).await;
    }
    assert_eq!(platform.metric(&refused("slow_head")).await, 0.0);
}

#[tokio::test]
async fn a_connection_that_never_asks_is_closed() {
    let platform = platform(&["--head-within=1"]).await;
    assert!(Raw::connect(&platform).await.closes().await);
    let mut silent = tls(&platform, "llm", "http/1.1").await.unwrap();
    assert_eq!(silent.read(&mut [0; 1]).await.unwrap_or_default(), 0);
}

#[tokio::test]
async fn a_body_may_take_longer_than_a_head() {
    let scripted = Scripted::start([Act::Json("1".into())]).await;
    let platform = Platform::start(&[&scripted], wishes(&["--head-within=0.5"])).await;
    let mut raw = Raw::connect(&platform).await;
    let whole = request(&platform, "POST", "own-chute", "/run", &format!("{{}}{}", " ".repeat(10)));
    let (first, last) = whole.split_at(whole.len() - 10);
    raw.send(first).await;
    for byte in last {
        tokio::time::sleep(Duration::from_millis(100)).await;
        raw.send(&[*byte]).await;
    }
    assert_eq!(raw.answer().await.status, 200);
}

#[tokio::test]
async fn a_connection_without_a_next_request_is_closed() {
    let platform = platform(&["--keep-alive=1"]).await;
    let mut raw = Raw::connect(&platform).await;
    raw.send(models("").as_bytes()).await;
    assert_eq!(raw.answer().await.status, 200);
    assert!(raw.closes().await);
}

#[tokio::test]
async fn an_address_has_only_so_many_connections() {
    let platform = platform(&["--max-connections-per-address=2"]).await;
    platform.until(OPEN, |open| open == 0.0).await;
    let before = platform.metric(&refused("connections_of_address")).await;
    let mut first = Raw::connect(&platform).await;
    let mut second = tls(&platform, "llm", "http/1.1").await.unwrap();
    platform.until(OPEN, |open| open == 2.0).await;
    assert!(Raw::connect(&platform).await.closes().await);
    assert!(tls(&platform, "llm", "http/1.1").await.is_err());
    assert_eq!(platform.metric(&refused("connections_of_address")).await - before, 2.0);
    let mut other = Raw::connect_from(&platform, "127.0.0.9").await;
    for raw in [&mut first, &mut other] {
        raw.send(models("").as_bytes()).await;
        assert_eq!(raw.answer().await.status, 200);
    }
    second.shutdown().await.unwrap();
    drop(second);
    platform.until(OPEN, |open| open == 2.0).await;
    let mut again = Raw::connect(&platform).await;
    again.send(models("").as_bytes()).await;
    assert_eq!(again.answer().await.status, 200);
}

#[tokio::test]
async fn a_trusted_peer_has_only_the_limit_of_all() {
    let settings = ["--max-connections-per-address=1", "--max-connections=3", "--trusted-peers=127.0.0.1"];
    let platform = platform(&settings).await;
    platform.until(OPEN, |open| open == 0.0).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut raw = Raw::connect(&platform).await;
        raw.send(models("").as_bytes()).await;
        assert_eq!(raw.answer().await.status, 200);
        held.push(raw);
    }
    assert!(Raw::connect(&platform).await.closes().await);
    assert!(Raw::connect_from(&platform, "127.0.0.9").await.closes().await);
    assert_eq!(platform.metric(&refused("connections")).await, 2.0);
}

#[tokio::test]
async fn without_memory_for_calls_they_are_refused_and_everything_else_goes_on() {
    let platform = platform(&["--memory-budget=1000000000", "--memory-no-calls=1"]).await;
    let mut raw = Raw::connect(&platform).await;
    raw.send(&request(&platform, "POST", "llm", "/v1/chat/completions", &chat(false))).await;
    let got = raw.answer().await;
    assert_eq!((got.status, got.json()["error"]["code"].as_str()), (503, Some("overloaded")));
    assert_eq!(got.field("retry-after"), Some("1"));
    assert_eq!(told(&platform, format!("GET /ping HTTP/1.1\r\nHost: api.{DOMAIN}\r\n\r\n").as_bytes()).await.0, 503);
    assert!(platform.metric("chutes_gateway_memory_used_bytes").await > 1e7);
    assert_eq!(platform.metric("chutes_gateway_memory_budget_bytes").await, 1e9);
    assert_eq!(platform.metric(&refused("call_memory")).await, 1.0);
}

#[tokio::test]
async fn without_memory_for_connections_they_are_closed() {
    let settings = ["--memory-budget=1000000000", "--memory-no-calls=1", "--memory-no-connections=1"];
    let platform = platform(&settings).await;
    assert!(Raw::connect(&platform).await.closes().await);
    assert!(tls(&platform, "llm", "http/1.1").await.is_err());
    assert!(platform.metric(&refused("connection_memory")).await >= 2.0);
}

#[tokio::test]
async fn calls_that_hold_memory_keep_others_out_until_they_end() {
    let scripted = Scripted::start([Act::Json("1".into())]).await;
    let platform = Platform::start(&[&scripted], wishes(&["--memory-budget=400000000", "--memory-no-calls=50"])).await;
    let body = " ".repeat(30 << 20);
    let mut held = Vec::new();
    while platform.metric("chutes_gateway_memory_used_bytes").await < 205e6 {
        let mut raw = Raw::connect(&platform).await;
        let whole = request(&platform, "POST", "own-chute", "/run", &body);
        raw.send(&whole[..whole.len() - 1]).await;
        held.push(raw);
        assert!(held.len() < 12, "memory does not grow");
    }
    let small = request(&platform, "POST", "own-chute", "/run", "{}");
    let mut late = Raw::connect(&platform).await;
    let refused_by = Instant::now() + Duration::from_secs(10);
    loop {
        late.send(&small).await;
        if late.answer().await.status == 503 {
            break;
        }
        assert!(Instant::now() < refused_by, "calls are let in all the same");
    }
    drop(held);
    let served_by = Instant::now() + Duration::from_secs(20);
    loop {
        late.send(&small).await;
        if late.answer().await.status == 200 {
            break;
        }
        assert!(Instant::now() < served_by, "calls are refused for ever");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn calls_are_refused_while_the_processor_is_late() {
    let scripted = Scripted::start([Act::Json("1".into())]).await;
    // Nothing is ever in time.
    let platform = Platform::start(&[&scripted], wishes(&["--max-lag=0"])).await;
    let mut raw = Raw::connect(&platform).await;
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        raw.send(&request(&platform, "POST", "own-chute", "/run", "{}")).await;
        let got = raw.answer().await;
        if got.status == 503 {
            assert_eq!(got.json()["error"]["code"].as_str(), Some("overloaded"));
            assert_eq!(got.field("retry-after"), Some("1"));
            break;
        }
        assert!(Instant::now() < deadline, "calls are never refused");
        tokio::time::sleep(Duration::from_millis(6)).await;
    }
    assert!(platform.metric(&refused("call_lag")).await >= 1.0);
}
