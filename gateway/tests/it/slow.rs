//! Clients that do not read what they are sent hold the instance back, take little memory, and are left in time.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use protocol::ids::CallId;
use protocol::usage::{Outcome, Record};
use tokio::sync::{Mutex, mpsc};
use tokio::time::{Instant, sleep};

use crate::client::{Raw, chat, content, request};
use crate::edge::browser_builder;
use crate::frames::{DATA, END_HEADERS, END_STREAM, Frames, HEADERS, RST_STREAM, SETTINGS, fields};
use crate::instance::{Act, Scripted};
use crate::platform::{DOMAIN, Platform, Wishes};

const CHAT: &str = "/v1/chat/completions";
/// How long a client may take nothing.
const STALL: Duration = Duration::from_secs(6);
/// Nothing is sent for so long: the way is full.
const STILL: Duration = Duration::from_secs(1);
/// What the kernel's buffers between an instance and a client hold at most, and some more.
const ON_THE_WAY: usize = 32 << 20;
/// What is on the way to a client with room for little is less.
pub(crate) const MORE_THAN_FITS: usize = 6 << 20;
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

async fn left(instance: &Scripted, platform: &Platform, clients: usize) -> HashMap<CallId, Record> {
    let mut abandoned = instance.abandoned.clone();
    let all = abandoned.wait_for(|abandoned| *abandoned == clients);
    tokio::time::timeout(5 * STALL, all).await.expect("clients that take nothing are left in time").unwrap();
    let records = platform.records(clients).await;
    assert_eq!(records.len(), clients);
    assert!(records.iter().all(|record| record.outcome == Outcome::Aborted && record.delivered));
    records.into_iter().map(|record| (record.admission.call, record)).collect()
}

#[tokio::test]
async fn clients_of_http1_that_do_not_read_hold_the_instance_back_and_are_left_in_time() {
    const CLIENTS: usize = 4;
    let (instance, platform, sent) = flooding().await;
    let before = platform.resident();
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut raw = Raw::connect_narrow(&platform, 256 << 10).await;
        raw.send(&request(&platform, "POST", "llm-chute", CHAT, &chat(true))).await;
        raw.read_until("xxx").await;
        clients.push(raw);
    }
    until_held_back(&instance, &sent).await;
    let (sent, grown) = (sent.load(Ordering::Relaxed), platform.resident().saturating_sub(before));
    assert!(sent < CLIENTS * ON_THE_WAY, "{sent} bytes were taken from the instance");
    // Beside the streams there is what the first call ever allocates.
    assert!(grown < CLIENTS * MEMORY + (8 << 20), "{CLIENTS} streams took {grown} bytes of memory");
    let records = left(&instance, &platform, CLIENTS).await;
    platform.until("chutes_gateway_connections", |open| open == 0.0).await;
    for mut client in clients {
        // What is sent in one chunk counts if all of it left. Behind it the connection ends: another answer would be read
        // as a part of this one.
        let got = tokio::time::timeout(STALL, client.answer()).await.expect("the connection is closed");
        assert!(!got.complete);
        let call: CallId = got.field("x-chutes-invocationid").unwrap().parse().unwrap();
        let chunks = got.text().matches("data:").count();
        assert_eq!(records[&call].facts.tokens, chunks as u64);
    }
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

/// What a client of HTTP/2 takes unless it says otherwise.
const WINDOW: usize = 65_535;

/// A call over HTTP/2 of a client that takes so much.
async fn call(platform: &Platform, window: usize, body: &str) -> Frames {
    let mut frames = Frames::connect(platform, "llm").await;
    let setting = [&[0, 4][..], &u32::try_from(window).unwrap().to_be_bytes()].concat();
    assert!(frames.send(SETTINGS, 0, 0, &setting).await);
    let key = format!("Bearer {}", platform.key);
    let block = fields(true, &format!("llm.{DOMAIN}"), CHAT, &[("authorization", &key)]);
    assert!(frames.send(HEADERS, END_HEADERS, 1, &block).await);
    assert!(frames.send(DATA, END_STREAM, 1, body.as_bytes()).await);
    frames.until(HEADERS).await.unwrap();
    frames
}

/// Takes so many bytes of an answer.
async fn take(frames: &mut Frames, mut bytes: usize) {
    while bytes > 0 {
        bytes -= frames.until(DATA).await.unwrap().payload.len();
    }
}

/// The only record, once a client has left its call or was left.
async fn aborted(frames: &mut Frames, platform: &Platform, leaves: bool) -> Record {
    if leaves {
        assert!(frames.send(RST_STREAM, 0, 1, &8_u32.to_be_bytes()).await);
    }
    let mut records = platform.records(1).await;
    assert_eq!((records.len(), records[0].outcome), (1, Outcome::Aborted));
    records.remove(0)
}

async fn impatient(act: Act) -> (Scripted, Platform) {
    let instance = Scripted::start([act]).await;
    let settings = vec!["--client-stall=1".into()];
    let platform = Platform::start(&[&instance], Wishes { settings, ..Wishes::default() }).await;
    (instance, platform)
}

#[tokio::test]
async fn a_piece_of_which_a_client_of_http2_took_a_part_is_not_counted() {
    for leaves in [true, false] {
        let (pieces, fed) = mpsc::channel(1);
        let (_instance, platform) = impatient(Act::Fed(Arc::new(Mutex::new(fed)))).await;
        let piece = content(&"x".repeat(WINDOW / 5 * 2));
        pieces.send(piece.clone()).await.unwrap();
        let mut frames = call(&platform, WINDOW, &chat(true)).await;
        take(&mut frames, piece.len()).await;
        pieces.send(piece.clone()).await.unwrap();
        take(&mut frames, piece.len()).await;
        pieces.send(piece.clone()).await.unwrap();
        take(&mut frames, WINDOW - 2 * piece.len()).await;
        let record = aborted(&mut frames, &platform, leaves).await;
        assert_eq!((record.delivered, record.facts.tokens), (true, 2), "leaves: {leaves}");
    }
}

#[tokio::test]
async fn a_stream_of_which_a_client_of_http2_took_nothing_is_not_counted() {
    for leaves in [true, false] {
        let (_instance, platform) = impatient(Act::Stall(vec![content("one")])).await;
        let mut frames = call(&platform, 0, &chat(true)).await;
        let record = aborted(&mut frames, &platform, leaves).await;
        assert_eq!((record.delivered, record.facts.tokens, record.facts.ttft), (false, 0, None), "leaves: {leaves}");
    }
}

/// An answer in one piece with so many bytes of text, which are four to a token.
pub(crate) fn whole(text: usize) -> Act {
    Act::Json(format!(r#"{{"choices":[{{"message":{{"content":"{}"}}}}]}}"#, "x".repeat(text)))
}

#[tokio::test]
async fn an_answer_in_one_piece_counts_whole_once_its_client_may_have_a_part_of_it() {
    for leaves in [true, false] {
        let (_instance, platform) = impatient(whole(4 * WINDOW)).await;
        let mut frames = call(&platform, WINDOW, &chat(false)).await;
        take(&mut frames, WINDOW).await;
        let record = aborted(&mut frames, &platform, leaves).await;
        assert_eq!((record.delivered, record.facts.tokens), (true, WINDOW as u64), "HTTP/2, leaves: {leaves}");

        let (_instance, platform) = impatient(whole(MORE_THAN_FITS)).await;
        let mut raw = Raw::connect_narrow(&platform, 16 << 10).await;
        raw.send(&request(&platform, "POST", "llm-chute", CHAT, &chat(false))).await;
        raw.read_until("xxx").await;
        let raw = (!leaves).then_some(raw);
        let record = platform.records(1).await.remove(0);
        drop(raw);
        let got = (record.outcome, record.delivered, record.facts.tokens);
        assert_eq!(got, (Outcome::Aborted, true, MORE_THAN_FITS as u64 / 4), "HTTP/1.1, leaves: {leaves}");
    }
}

#[tokio::test]
async fn an_answer_in_one_piece_of_which_nothing_left_is_not_counted() {
    for leaves in [true, false] {
        let (_instance, platform) = impatient(whole(4 * WINDOW)).await;
        let mut frames = call(&platform, 0, &chat(false)).await;
        let record = aborted(&mut frames, &platform, leaves).await;
        assert_eq!((record.delivered, record.facts.tokens), (false, 0), "leaves: {leaves}");
        assert_eq!(record.error.as_deref(), Some("ABORTED"));
    }
}
