//! What is counted of the answers that clients get: each once, with whose fault it is.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{Mutex, mpsc};

use crate::client::{Raw, ask, chat, content, request};
use crate::instance::{Act, Scripted};
use crate::platform::{DOMAIN, Platform, Wishes};

const CHAT: &str = "/v1/chat/completions";
const DONE: &str = "data: [DONE]\n\n";
const SERVED: &str = r#"{blame="none",code="none",status="2xx"}"#;

/// Answers by their labels; those never given are left out.
async fn counted(platform: &Platform) -> BTreeMap<String, u64> {
    platform.is_idle().await;
    let text = platform.metrics().await;
    let counters = text.lines().filter_map(|line| line.strip_prefix("chutes_gateway_answers_total")?.split_once(' '));
    let counters = counters.map(|(labels, count)| (labels.to_owned(), count.parse().unwrap()));
    counters.filter(|(_, count)| *count > 0).collect()
}

fn error(code: u16) -> String {
    format!("data: {{\"error\":{{\"message\":\"no\",\"code\":{code}}}}}\n\n")
}

#[tokio::test]
async fn a_stream_is_counted_once_by_how_it_ended() {
    let one = || content("one");
    let table = [
        (Act::Stream(vec![one(), DONE.into()]), SERVED),
        (Act::Die(vec![one()]), r#"{blame="instance",code="exhausted",status="2xx"}"#),
        (Act::Stall(vec![one()]), r#"{blame="instance",code="upstream_timeout",status="2xx"}"#),
    ];
    for (act, labels) in table {
        let instance = Scripted::start([act]).await;
        let settings = vec!["--idle=1".to_owned()];
        let platform = Platform::start(&[&instance], Wishes { settings, ..Wishes::default() }).await;
        assert_eq!(ask(&platform, "POST", "llm", CHAT, &chat(true)).await.status, 200);
        assert_eq!(counted(&platform).await, BTreeMap::from([(labels.to_owned(), 1)]));
    }
}

#[tokio::test]
async fn a_stream_that_goes_on_with_an_error_is_counted_by_what_it_says() {
    for (code, labels) in [
        (500, r#"{blame="instance",code="exhausted",status="2xx"}"#),
        (429, r#"{blame="platform",code="at_capacity",status="2xx"}"#),
        (400, r#"{blame="client",code="bad_request",status="2xx"}"#),
    ] {
        let (pieces, receiver) = mpsc::channel(1);
        let instance = Scripted::start([Act::Fed(Arc::new(Mutex::new(receiver)))]).await;
        let platform = Platform::start(&[&instance], Wishes::default()).await;
        let mut raw = Raw::connect(&platform).await;
        raw.send(&request(&platform, "POST", "llm", CHAT, &chat(true))).await;
        pieces.send(content("one")).await.unwrap();
        // What comes with the first piece is no answer at all.
        raw.read_until("one").await;
        pieces.send(error(code)).await.unwrap();
        drop(pieces);
        assert!(raw.answer().await.complete);
        assert_eq!(counted(&platform).await, BTreeMap::from([(labels.to_owned(), 1)]));
    }
}

#[tokio::test]
async fn a_stream_whose_client_leaves_is_nobodys_fault() {
    let instance = Scripted::start([Act::Stall(vec![content("one")])]).await;
    let platform = Platform::start(&[&instance], Wishes::default()).await;
    let mut raw = Raw::connect(&platform).await;
    raw.send(&request(&platform, "POST", "llm", CHAT, &chat(true))).await;
    raw.read_until("one").await;
    drop(raw);
    assert_eq!(counted(&platform).await, BTreeMap::from([(SERVED.to_owned(), 1)]));
}

#[tokio::test]
async fn a_list_of_models_is_no_answer_to_a_call() {
    let platform = Platform::start(&[], Wishes::default()).await;
    let mut raw = Raw::connect(&platform).await;
    raw.send(format!("GET /v1/models HTTP/1.1\r\nHost: llm.{DOMAIN}\r\n\r\n").as_bytes()).await;
    assert_eq!(raw.answer().await.status, 200);
    assert_eq!(counted(&platform).await, BTreeMap::new());
    let lists = r#"chutes_gateway_service_answers_total{service="models",status="2xx"}"#;
    assert_eq!(platform.metric(lists).await, 1.0);
}
