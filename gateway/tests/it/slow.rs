//! Clients that do not read what they are sent hold the instance back, take little memory, and are left in time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use protocol::usage::Outcome;
use tokio::time::{Instant, sleep};

use crate::client::{Raw, chat, request};
use crate::edge::browser_builder;
use crate::instance::{Act, Scripted};
use crate::platform::{DOMAIN, Platform, Wishes};

const CHAT: &str = "/v1/chat/completions";
/// How long a client may take nothing.
const STALL: Duration = Duration::from_secs(6);
/// Nothing is sent for so long: the way is full.
const STILL: Duration = Duration::from_secs(1);
/// What the kernel's buffers between an instance and a client hold at most, and some more.
const ON_THE_WAY: usize = 32 << 20;
/// What a stream that nobody reads may take of the gateway's memory.
const MEMORY: usize = 512 << 10;

async fn flooding() -> (Scripted, Platform, Arc<AtomicUsize>) {
    let sent = Arc::new(AtomicUsize::new(0));
    let instance = Scripted::start([Act::Flood(sent.clone())]).await;
    let settings = vec!["--client-stall".into(), STALL.as_secs().to_string()];
    let platform = Platform::start(&[&instance], Wishes { settings, ..Wishes::default() }).await;
    (instance, platform, sent)
}

/// Until nothing more is sent, while nobody was left yet.
async fn until_held_back(instance: &Scripted, sent: &AtomicUsize) {
    let (mut before, mut since) = (usize::MAX, Instant::now());
    while since.elapsed() < STILL {
        sleep(Duration::from_millis(20)).await;
        let now = sent.load(Ordering::Relaxed);
        if now == 0 || now != before {
            (before, since) = (now, Instant::now());
        }
        assert_eq!(*instance.abandoned.borrow(), 0, "a client was left before the way was full: {now} bytes");
    }
}

async fn left(instance: &Scripted, platform: &Platform, clients: usize) {
    let mut abandoned = instance.abandoned.clone();
    let all = abandoned.wait_for(|abandoned| *abandoned == clients);
    tokio::time::timeout(5 * STALL, all).await.expect("clients that take nothing are left in time").unwrap();
    let records = platform.records(clients).await;
    assert_eq!(records.len(), clients);
    assert!(records.iter().all(|record| record.outcome == Outcome::Aborted && record.delivered));
}

#[tokio::test]
async fn clients_of_http1_that_do_not_read_hold_the_instance_back_and_are_left_in_time() {
    const CLIENTS: usize = 4;
    let (instance, platform, sent) = flooding().await;
    let before = platform.resident();
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut raw = Raw::connect(&platform).await;
        raw.send(&request(&platform, "POST", "llm-chute", CHAT, &chat(true))).await;
        raw.read_until("xxx").await;
        clients.push(raw);
    }
    until_held_back(&instance, &sent).await;
    let (sent, grown) = (sent.load(Ordering::Relaxed), platform.resident().saturating_sub(before));
    assert!(sent < CLIENTS * ON_THE_WAY, "{sent} bytes were taken from the instance");
    // Beside the streams there is what the first call ever allocates.
    assert!(grown < CLIENTS * MEMORY + (8 << 20), "{CLIENTS} streams took {grown} bytes of memory");
    left(&instance, &platform, CLIENTS).await;
}

#[tokio::test]
async fn a_client_of_http2_that_does_not_read_holds_its_instance_back_alone_and_is_left_in_time() {
    let (instance, platform, sent) = flooding().await;
    let host = format!("llm.{DOMAIN}");
    let client = browser_builder(&platform, &host).http2_initial_stream_window_size(1 << 16);
    let client = client.http2_initial_connection_window_size(1 << 20).build().unwrap();
    let call = client.post(format!("https://{host}:{}{CHAT}", platform.https)).bearer_auth(&platform.key);
    let mut got = call.body(chat(true)).send().await.unwrap();
    assert_eq!(got.version(), reqwest::Version::HTTP_2);
    assert!(got.chunk().await.unwrap().is_some());
    until_held_back(&instance, &sent).await;
    assert!(sent.load(Ordering::Relaxed) < ON_THE_WAY);
    let models = client.get(format!("https://{host}:{}/v1/models", platform.https)).send().await.unwrap();
    assert_eq!(models.status(), 200, "other streams of the connection go on");
    left(&instance, &platform, 1).await;
}
