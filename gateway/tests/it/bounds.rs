//! Settings that bound what instances and request bodies may take, through the real executable.

use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::client::{Raw, ask, chat, content, request};
use crate::instance::{Act, Scripted};
use crate::platform::{Platform, Wishes};

const LONGEST: Duration = Duration::from_secs(20);

async fn platform(instance: &Scripted, setting: &str) -> Platform {
    Platform::start(&[instance], Wishes { settings: vec![setting.to_owned()], ..Wishes::default() }).await
}

#[tokio::test]
async fn an_answer_is_no_larger_than_it_may_be() {
    let large = format!(r#""{}""#, "x".repeat(5000));
    let scripted = Scripted::start([Act::Json(large), Act::Json("{}".into())]).await;
    let platform = platform(&scripted, "--max-answer=4000").await;
    let got = ask(&platform, "POST", "own-chute", "/run", "{}").await;
    assert_eq!((got.status, got.json()["error"]["code"].as_str()), (502, Some("bad_answer")));
    assert_eq!(ask(&platform, "POST", "own-chute", "/run", "{}").await.status, 200);
    assert_eq!(platform.records(2).await[0].error.as_deref(), Some("GARBLED_ANSWER"));
}

#[tokio::test]
async fn an_instance_may_be_silent_within_an_answer_only_so_long() {
    let scripted = Scripted::start([Act::Stall(vec![content("one")])]).await;
    let platform = platform(&scripted, "--idle=1").await;
    let began = Instant::now();
    let got = timeout(LONGEST, ask(&platform, "POST", "llm-chute", "/v1/chat/completions", &chat(true))).await.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(1));
    assert!(got.complete && got.text().contains(r#""type":"server_error""#), "{}", got.text());
    scripted.abandoned.clone().wait_for(|abandoned| *abandoned == 1).await.unwrap();
    assert_eq!(platform.records(1).await[0].error.as_deref(), Some("TIMEOUT"));
}

/// Somebody who accepts nothing, behind a queue that is full.
async fn unreachable() -> (TcpListener, Vec<TcpStream>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let (listener, mut queue) = (socket.listen(1).unwrap(), Vec::new());
    let address = listener.local_addr().unwrap();
    while let Ok(connected) = timeout(Duration::from_millis(500), TcpStream::connect(address)).await {
        queue.push(connected.unwrap());
    }
    (listener, queue)
}

#[tokio::test]
async fn an_instance_that_cannot_be_reached_is_given_up_in_time() {
    let (listener, _queue) = unreachable().await;
    let mut scripted = Scripted::start([Act::Close]).await;
    scripted.address = listener.local_addr().unwrap();
    let platform = platform(&scripted, "--connect=0.5").await;
    let began = Instant::now();
    let got = ask(&platform, "POST", "own-chute", "/run", "{}").await;
    assert_eq!((got.status, got.json()["error"]["code"].as_str()), (502, Some("exhausted")));
    let took = began.elapsed();
    assert!((Duration::from_millis(500)..Duration::from_secs(4)).contains(&took), "it took {took:?}");
    assert_eq!(platform.records(1).await[0].error.as_deref(), Some("CONNECT_FAILED"));
}

#[tokio::test]
async fn bodies_take_no_more_memory_together_than_they_may() {
    let scripted = Scripted::start([Act::Json("{}".into())]).await;
    let platform = platform(&scripted, "--max-bodies=1000000").await;
    let large = request(&platform, "POST", "own-chute", "/run", &format!("{{}}{}", " ".repeat(600_000)));
    let [mut one, mut other] = [Raw::connect(&platform).await, Raw::connect(&platform).await];
    for raw in [&mut one, &mut other] {
        raw.send(&large[..large.len() - 1]).await;
    }
    // There is room for either, whichever is read first.
    let first = async {
        tokio::select! {
            got = one.answer() => (got, other),
            got = other.answer() => (got, one),
        }
    };
    let (refused, mut held) = timeout(LONGEST, first).await.expect("both bodies are taken");
    assert_eq!((refused.status, refused.json()["error"]["code"].as_str()), (503, Some("overloaded")));
    assert_eq!(refused.json()["detail"], "too many large requests at the moment, try again");
    assert_eq!(ask(&platform, "POST", "own-chute", "/run", "{}").await.status, 200);
    held.send(&large[large.len() - 1..]).await;
    assert_eq!(held.answer().await.status, 200);
    held.send(&large).await;
    assert_eq!(held.answer().await.status, 200);
}
