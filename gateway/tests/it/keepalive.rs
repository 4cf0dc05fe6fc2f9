//! Comments that keep a silent stream alive, over real sockets.

use std::sync::Arc;
use std::time::{Duration, Instant};

use protocol::directory::Directory;
use protocol::usage::Outcome;
use tokio::sync::{Mutex, mpsc};

use crate::client::{Raw, ask, chat, content, request};
use crate::instance::{Act, Scripted};
use crate::platform::{DOMAIN, Platform, Wishes};

const CHAT: &str = "/v1/chat/completions";
const ALIVE: &str = ": keepalive\n\n";
const DONE: &str = "data: [DONE]\n\n";
/// Longer than the pulse of the gateways here.
const SILENCE: Duration = Duration::from_millis(500);

fn wishes(pulse: &str) -> Wishes {
    Wishes { settings: vec![format!("--keepalive={pulse}")], ..Wishes::default() }
}

async fn fed() -> (Scripted, mpsc::Sender<String>) {
    let (sender, receiver) = mpsc::channel(16);
    (Scripted::start([Act::Fed(Arc::new(Mutex::new(receiver)))]).await, sender)
}

/// What an answer says beside its comments, of which there must be some.
fn without_comments(text: &str) -> String {
    assert!(text.contains(ALIVE), "no comment in {text:?}");
    text.replace(ALIVE, "")
}

#[tokio::test]
async fn a_long_prefill_and_a_gap_are_filled_and_nothing_else_is_changed() {
    let (instance, pieces) = fed().await;
    let platform = Platform::start(&[&instance], wishes("0.1")).await;
    let mut raw = Raw::connect(&platform).await;
    raw.send(&request(&platform, "POST", "llm-chute", CHAT, &chat(true))).await;
    raw.read_until(ALIVE).await;
    pieces.send(content("one")).await.unwrap();
    raw.read_until(&format!("\"one\"}}}}]}}\n\n\r\nD\r\n{ALIVE}")).await;
    pieces.send("data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"tw".into()).await.unwrap();
    tokio::time::sleep(SILENCE).await;
    pieces.send("o\"}}]}\n\n".into()).await.unwrap();
    pieces.send(DONE.into()).await.unwrap();
    drop(pieces);
    let got = raw.answer().await;
    assert_eq!((got.status, got.complete, got.field("content-type")), (200, true, Some("text/event-stream")));
    assert_eq!(without_comments(&got.text()), content("one") + &content("two") + DONE);
    let record = platform.records(1).await.remove(0);
    assert_eq!(got.field("x-chutes-invocationid"), Some(record.admission.call.to_string().as_str()));
    assert_eq!((record.outcome, record.facts.tokens, record.facts.ot), (Outcome::Finished, 2, 2));
    assert_eq!(instance.asked(), 1);
}

#[tokio::test]
async fn after_a_comment_another_instance_may_still_answer() {
    let [first, second] =
        Scripted::pair([Act::Break("", SILENCE), Act::Stream(vec![content("one"), DONE.into()])]).await;
    let platform = Platform::start(&[&first, &second], wishes("0.1")).await;
    let got = ask(&platform, "POST", "llm-chute", CHAT, &chat(true)).await;
    assert_eq!(without_comments(&got.text()), content("one") + DONE);
    let records = platform.records(2).await;
    assert_eq!((records[0].outcome, records[0].delivered), (Outcome::Failed, false));
    assert_eq!((records[1].outcome, records[1].facts.tokens), (Outcome::Finished, 1));
}

#[tokio::test]
async fn after_a_comment_a_failure_is_an_event_of_the_stream() {
    let refused = "HTTP/1.1 422 No\r\nContent-Length: 22\r\n\r\n{\"message\":\"too long\"}";
    for (said, code, message) in [
        ("", "exhausted", "every available instance failed to answer"),
        (refused, "bad_request", "too long"),
        (
            "HTTP/1.1 422 No\r\nContent-Length: 2\r\n\r\n{}",
            "bad_request",
            "the instance refused the request with status 422",
        ),
    ] {
        let failing = Scripted::start([Act::Break(said, SILENCE)]).await;
        let platform = Platform::start(&[&failing], wishes("0.1")).await;
        let got = ask(&platform, "POST", "llm-chute", CHAT, &chat(true)).await;
        assert_eq!((got.status, got.complete), (200, true));
        let text = without_comments(&got.text());
        let event: serde_json::Value = serde_json::from_str(text.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!((event["error"]["code"].as_str(), event["error"]["message"].as_str()), (Some(code), Some(message)));
        let record = platform.records(1).await.remove(0);
        assert_eq!((record.outcome, record.delivered), (Outcome::Failed, false));
    }
}

fn plain_lines(directory: &mut Directory) {
    directory.chutes[1].cords[1].content_type = Some("text/plain".into());
}

#[tokio::test]
async fn answers_that_are_no_event_stream_and_gateways_told_not_to_get_no_comment() {
    for (pulse, label, path, body) in [
        ("0.1", "llm-chute", CHAT, chat(false)),
        ("0.1", "own-chute", "/lines", "{}".into()),
        ("0", "llm-chute", CHAT, chat(true)),
    ] {
        let failing = Scripted::start([Act::Break("", SILENCE)]).await;
        let wishes = Wishes { directory: Some(plain_lines), ..wishes(pulse) };
        let platform = Platform::start(&[&failing], wishes).await;
        let got = ask(&platform, "POST", label, path, &body).await;
        assert_eq!((got.status, got.json()["error"]["code"].as_str()), (502, Some("exhausted")), "{label} {pulse}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_after_comments_closes_the_instance_and_is_charged_nothing() {
    let (instance, _pieces) = fed().await;
    let platform = Platform::start(&[&instance], wishes("0.1")).await;
    let mut raw = Raw::connect(&platform).await;
    raw.send(&request(&platform, "POST", "llm-chute", CHAT, &chat(true))).await;
    raw.read_until(ALIVE).await;
    let left = Instant::now();
    drop(raw);
    instance.abandoned.clone().wait_for(|abandoned| *abandoned == 1).await.unwrap();
    assert!(left.elapsed() < Duration::from_secs(2), "closed after {:?}", left.elapsed());
    let record = platform.records(1).await.remove(0);
    assert_eq!((record.outcome, record.delivered, record.facts.ot), (Outcome::Aborted, false, 0));
    assert_eq!(record.error.as_deref(), Some("ABORTED"));
}

#[tokio::test]
async fn over_http2_too_a_prefill_has_comments_and_a_client_that_resets_it_is_noticed() {
    let (instance, pieces) = fed().await;
    let platform = Platform::start(&[&instance], wishes("0.1")).await;
    let host = format!("llm-chute.{DOMAIN}");
    let root = reqwest::Certificate::from_pem(platform.authority.as_bytes()).unwrap();
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], platform.https));
    let client = reqwest::Client::builder().add_root_certificate(root).resolve(&host, address).http2_prior_knowledge();
    let client = client.build().unwrap();
    let post = client.post(format!("https://{host}:{}{CHAT}", platform.https)).bearer_auth(&platform.key);
    let mut got = post.body(chat(true)).send().await.unwrap();
    assert_eq!((got.version(), got.status().as_u16()), (reqwest::Version::HTTP_2, 200));
    assert_eq!(got.chunk().await.unwrap().unwrap(), ALIVE);
    pieces.send(content("one")).await.unwrap();
    let mut text = String::new();
    while !text.ends_with(&(content("one") + ALIVE)) {
        text += std::str::from_utf8(&got.chunk().await.unwrap().unwrap()).unwrap();
    }
    drop(got);
    instance.abandoned.clone().wait_for(|abandoned| *abandoned == 1).await.unwrap();
    let record = platform.records(1).await.remove(0);
    assert_eq!((record.outcome, record.delivered, record.facts.tokens), (Outcome::Aborted, true, 1));
}
