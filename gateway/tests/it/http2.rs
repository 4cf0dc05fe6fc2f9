//! What one HTTP/2 connection may take, frame by frame.

use std::time::{Duration, Instant};

use tokio::net::TcpListener;

use crate::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, RST_STREAM, SETTINGS, WINDOW_UPDATE, fields,
};
use crate::platform::{DOMAIN, Platform, Wishes};

const REFUSED_STREAM: u32 = 7;
/// The field `:status: 400` by its number in the table of every connection.
const STATUS_400: u8 = 0x8c;
const CANCEL: [u8; 4] = 8_u32.to_be_bytes();
const ENHANCE_YOUR_CALM: u32 = 11;
const MAX_CONCURRENT_STREAMS: u16 = 3;
const INITIAL_WINDOW_SIZE: u16 = 4;
const MAX_HEADER_LIST_SIZE: u16 = 6;
/// Resets between two looks at whether the gateway reads on.
const LOOKED_AT: u32 = 32;
/// The window of a connection before it is widened.
const FIRST_WINDOW: u32 = 65_535;

async fn platform(settings: &[&str]) -> Platform {
    let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
    Platform::start(&[], Wishes { settings, ..Wishes::default() }).await
}

fn host() -> String {
    format!("llm.{DOMAIN}")
}

/// What the gateway says first: streams, stream window, header list, connection window.
async fn announced(platform: &Platform) -> [Option<u32>; 4] {
    let mut frames = Frames::connect(platform, "llm").await;
    let settings = frames.until(SETTINGS).await.unwrap();
    let setting = |wanted: u16| {
        let entries = settings.payload.chunks(6);
        let mut entries = entries.map(|entry| (&entry[..2], u32::from_be_bytes(entry[2..].try_into().unwrap())));
        entries.find(|(name, _)| *name == wanted.to_be_bytes()).map(|(_, value)| value)
    };
    let connection = frames.until(WINDOW_UPDATE).await.map(|update| update.number(0) + FIRST_WINDOW);
    [setting(MAX_CONCURRENT_STREAMS), setting(INITIAL_WINDOW_SIZE), setting(MAX_HEADER_LIST_SIZE), connection]
}

#[tokio::test]
async fn streams_windows_and_header_lists_are_bounded_as_the_settings_say() {
    let by_default = announced(&platform(&[]).await).await;
    assert_eq!(by_default, [Some(100), Some(64 << 10), Some(32 << 10), Some(1 << 20)]);
    let otherwise = platform(&[
        "--http2-streams=7",
        "--http2-stream-window=1000",
        "--max-head=5000",
        "--http2-connection-window=100000",
    ]);
    assert_eq!(announced(&otherwise.await).await, [Some(7), Some(1000), Some(5000), Some(100_000)]);
}

#[tokio::test]
async fn a_stream_more_than_there_may_be_is_refused_alone() {
    let api = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let settings = vec!["--http2-streams=3".into()];
    let wishes = Wishes { api: Some(api.local_addr().unwrap()), settings, ..Wishes::default() };
    let platform = Platform::start(&[], wishes).await;
    let mut frames = Frames::connect(&platform, "api").await;
    // A client that has heard of the limit is refused politely.
    frames.until(WINDOW_UPDATE).await.unwrap();
    assert!(frames.send(SETTINGS, 1, 0, &[]).await);
    for stream in [1, 3, 5, 7] {
        let block = fields(false, &format!("api.{DOMAIN}"), "/slow", &[]);
        assert!(frames.send(HEADERS, END_HEADERS | END_STREAM, stream, &block).await);
    }
    let refused = frames.next().await.unwrap();
    assert_eq!((refused.kind, refused.stream, refused.number(0)), (RST_STREAM, 7, REFUSED_STREAM));
    assert!(frames.send(RST_STREAM, 0, 1, &CANCEL).await);
    let block = fields(false, &host(), "/v1/models", &[]);
    assert!(frames.send(HEADERS, END_HEADERS | END_STREAM, 9, &block).await);
    let answered = frames.until(HEADERS).await.unwrap();
    assert_eq!(answered.stream, 9);
}

#[tokio::test]
async fn a_length_said_twice_is_refused_over_http2_too() {
    // Nobody answers there.
    let api = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let wishes = Wishes { api: Some(api.local_addr().unwrap()), ..Wishes::default() };
    let platform = Platform::start(&[], wishes).await;
    let mut frames = Frames::connect(&platform, "api").await;
    // Two that differ are refused by the framework.
    let lengths = [("content-length", "2"); 2];
    let block = fields(true, &format!("api.{DOMAIN}"), "/", &lengths);
    assert!(frames.send(HEADERS, END_HEADERS, 1, &block).await);
    assert!(frames.send(DATA, END_STREAM, 1, b"{}").await);
    let answered = frames.until(HEADERS).await.unwrap();
    assert_eq!((answered.stream, answered.payload[0]), (1, STATUS_400));
}

/// Opens and resets this many streams, waiting for the gateway now and then; how many frames went out.
async fn reset(frames: &mut Frames, from: u32, count: u32) -> u32 {
    for number in from..from + count {
        let stream = 2 * number + 1;
        let block = fields(true, &host(), "/v1/chat/completions", &[]);
        let sent = frames.send(HEADERS, END_HEADERS, stream, &block).await;
        if !sent || !frames.send(RST_STREAM, 0, stream, &CANCEL).await {
            return number;
        }
        // Whoever resets faster than the gateway takes streams in is stopped sooner.
        if number % LOOKED_AT == LOOKED_AT - 1 && !frames.is_read().await {
            return number;
        }
    }
    from + count
}

/// Whether the gateway answers a request on this stream without asking the client to leave.
async fn is_answered(frames: &mut Frames, number: u32) -> bool {
    let block = fields(false, &host(), "/v1/models", &[]);
    assert!(frames.send(HEADERS, END_HEADERS | END_STREAM, 2 * number + 1, &block).await);
    loop {
        let frame = frames.next().await.unwrap();
        if frame.kind == GOAWAY || (frame.kind == HEADERS && frame.stream == 2 * number + 1) {
            return frame.kind == HEADERS;
        }
    }
}

#[tokio::test]
async fn a_client_that_resets_too_many_streams_is_asked_to_leave() {
    for (settings, allowed) in [(&["--http2-resets=50"][..], 50), (&[], 1000)] {
        let platform = platform(settings).await;
        let mut frames = Frames::connect(&platform, "llm").await;
        reset(&mut frames, 0, allowed - 1).await;
        assert!(is_answered(&mut frames, allowed - 1).await, "{} resets are allowed", allowed - 1);
        reset(&mut frames, allowed, 1).await;
        let leave = frames.until(GOAWAY).await.unwrap();
        assert_eq!(leave.number(4), 0, "the client has broken no rule: {leave:?}");
        assert_eq!(platform.metric("chutes_gateway_refused_total{reason=\"resets\"}").await, 1.0);
    }
}

#[tokio::test]
async fn a_client_that_does_not_leave_when_asked_is_cut_off() {
    let platform = platform(&["--http2-resets=50"]).await;
    let mut frames = Frames::connect(&platform, "llm").await;
    let sent = reset(&mut frames, 0, 100_000).await;
    // Asked to leave at 50, cut off at 100 at the latest, or before, once no stream is left; it looks every so often.
    assert!((50..=100 + LOOKED_AT).contains(&sent), "cut off after {sent} resets");
}

#[tokio::test]
async fn a_head_in_endless_continuations_ends_the_connection() {
    let platform = platform(&[]).await;
    let mut frames = Frames::connect(&platform, "llm").await;
    assert!(frames.send(HEADERS, 0, 1, &fields(false, &host(), "/", &[])).await);
    let mut sent = 0;
    while sent < 100_000 && frames.send(CONTINUATION, 0, 1, &[]).await {
        sent += 1;
    }
    assert!(sent < 100_000);
    if let Some(goaway) = frames.until(GOAWAY).await {
        assert_eq!(goaway.number(4), ENHANCE_YOUR_CALM);
    }
}

#[tokio::test]
async fn a_head_that_trickles_over_http2_ends_the_connection_however_it_trickles() {
    let platform = platform(&["--head-within=1"]).await;
    let mut frames = Frames::connect(&platform, "llm").await;
    let started = Instant::now();
    let head_of_a_frame = [0, 0x10, 0, HEADERS, END_HEADERS, 0, 0, 0, 1];
    assert!(frames.write(&head_of_a_frame).await);
    while frames.write(&[0x82]).await {
        assert!(started.elapsed() < Duration::from_secs(20), "the head goes on for ever");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(started.elapsed() >= Duration::from_secs(1));
    assert!(platform.metric("chutes_gateway_refused_total{reason=\"slow_head\"}").await >= 1.0);
}

#[tokio::test]
async fn a_body_may_take_longer_than_a_head_over_http2() {
    let platform = platform(&["--head-within=0.5"]).await;
    let mut frames = Frames::connect(&platform, "llm").await;
    let key = platform.key.clone();
    let block = fields(true, &host(), "/v1/chat/completions", &[("authorization", &key)]);
    assert!(frames.send(HEADERS, END_HEADERS, 1, &block).await);
    for _ in 0..10 {
        assert!(frames.send(DATA, 0, 1, b" ").await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(frames.send(DATA, END_STREAM, 1, b"{}").await);
    assert_eq!(frames.until(HEADERS).await.unwrap().stream, 1);
}

#[tokio::test]
async fn a_connection_of_http2_without_a_request_is_closed() {
    let platform = platform(&["--keep-alive=1"]).await;
    let mut frames = Frames::connect(&platform, "llm").await;
    assert!(frames.until(DATA).await.is_none());
}
