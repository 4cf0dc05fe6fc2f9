//! Requests in the hands of our services: how long their bodies may be silent, and how many there may be.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::client::Raw;
use crate::frames::{DATA, END_HEADERS, END_STREAM, Frames, HEADERS, RST_STREAM, fields};
use crate::platform::{DOMAIN, Platform, Wishes};

/// How long a client may be silent here, and how long until that must have shown.
const SILENCE: Duration = Duration::from_secs(1);
const SHOWN: Duration = Duration::from_secs(4);
const LONGEST: Duration = Duration::from_secs(60);
/// More than the kernel takes of an upload that nobody reads.
const LARGE: usize = 32 << 20;
const SILENT_BODY: &str = "chutes_gateway_refused_total{reason=\"silent_body\"}";
const FORWARDED: &str = "chutes_gateway_forwarded";

/// A gateway whose services are all played by the test.
async fn platform(settings: &[&str]) -> (Platform, TcpListener) {
    let api = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: SocketAddr = api.local_addr().unwrap();
    let settings = settings.iter().map(|setting| (*setting).to_owned());
    let settings = settings.chain([format!("--registry-upstream={address}")]).collect();
    (Platform::start(&[], Wishes { api: Some(address), settings, ..Wishes::default() }).await, api)
}

/// The next request that comes to a service, read until its bytes end so.
async fn comes(service: &TcpListener, end: &[u8]) -> TcpStream {
    let (mut stream, _) = timeout(LONGEST, service.accept()).await.unwrap().unwrap();
    let mut read = Vec::new();
    while !read.ends_with(end) {
        read.push(timeout(LONGEST, stream.read_u8()).await.unwrap().unwrap());
    }
    stream
}

/// Whether the other side of a connection leaves it.
async fn is_left(stream: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    timeout(SHOWN, stream.read_to_end(&mut rest)).await.is_ok()
}

fn assert_just_shown(since: Instant, what: &str) {
    assert!((SILENCE..SHOWN).contains(&since.elapsed()), "{what} ended after {:?}", since.elapsed());
}

#[tokio::test]
async fn a_silent_body_is_408_whatever_it_would_upgrade_to() {
    let (platform, service) = platform(&["--client-silence=1"]).await;
    let upgrades = ["", "Upgrade: x\r\n", "Connection: Upgrade\r\nUpgrade: websocket\r\n"];
    let uploads = upgrades.map(|upgrade| ("api", upgrade)).into_iter().chain([("registry", "")]);
    for (host, more) in uploads.chain([("own-chute", "")]) {
        let mut raw = Raw::connect(&platform).await;
        let head = format!("POST /run HTTP/1.1\r\nHost: {host}.{DOMAIN}\r\nAuthorization: {}\r\n", platform.key);
        let began = Instant::now();
        raw.send(format!("{head}{more}Content-Length: 1000000\r\n\r\n{{").as_bytes()).await;
        let got = timeout(SHOWN, raw.answer()).await.expect("a silent body is ended");
        assert_eq!((got.status, got.json()["detail"].is_string()), (408, true), "{host} {more}");
        assert_just_shown(began, host);
        assert!(raw.closes().await);
        if host != "own-chute" {
            assert!(is_left(&mut comes(&service, b"{").await).await, "the service waits on");
        }
    }
    assert_eq!(platform.metric(SILENT_BODY).await, 4.0);
}

#[tokio::test]
async fn a_silent_body_over_http2_ends_its_stream_alone() {
    let (platform, service) = platform(&["--client-silence=1"]).await;
    for host in ["api", "registry"] {
        let mut frames = Frames::connect(&platform, host).await;
        let host = format!("{host}.{DOMAIN}");
        let began = Instant::now();
        assert!(frames.send(HEADERS, END_HEADERS, 1, &fields(true, &host, "/silent", &[])).await);
        assert!(frames.send(DATA, 0, 1, b"{").await);
        let mut silent = comes(&service, b"1\r\n{\r\n").await;
        let page = fields(false, &host, "/page", &[]);
        assert!(frames.send(HEADERS, END_HEADERS | END_STREAM, 3, &page).await);
        let mut asked = comes(&service, b"\r\n\r\n").await;
        let reset = frames.until(RST_STREAM).await.unwrap();
        assert_eq!(reset.stream, 1);
        assert_just_shown(began, "the upload");
        assert!(is_left(&mut silent).await, "the service waits on");
        // Whoever has said all may wait longer than that.
        asked.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
        assert_eq!(frames.until(DATA).await.unwrap().stream, 3);
    }
    assert_eq!(platform.metric(SILENT_BODY).await, 2.0);
}

#[tokio::test]
async fn a_body_over_http2_that_moves_slowly_lives_on() {
    let (platform, service) = platform(&["--client-silence=1"]).await;
    let mut frames = Frames::connect(&platform, "api").await;
    let block = fields(true, &format!("api.{DOMAIN}"), "/slow", &[]);
    assert!(frames.send(HEADERS, END_HEADERS, 1, &block).await);
    let began = Instant::now();
    while began.elapsed() < 3 * SILENCE {
        assert!(frames.send(DATA, 0, 1, b"x").await);
        tokio::time::sleep(SILENCE / 4).await;
    }
    assert!(frames.send(DATA, END_STREAM, 1, b"x").await);
    let mut asked = comes(&service, b"\r\n0\r\n\r\n").await;
    asked.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
    assert_eq!(frames.until(DATA).await.unwrap().payload, b"ok");
    assert_eq!(platform.metric(SILENT_BODY).await, 0.0);
}

#[tokio::test]
async fn a_service_that_takes_nothing_for_a_while_is_not_held_against_its_client() {
    let (platform, service) = platform(&["--client-silence=1"]).await;
    let host = format!("api.{DOMAIN}");
    let root = reqwest::Certificate::from_pem(platform.authority.as_bytes()).unwrap();
    let client = reqwest::Client::builder().add_root_certificate(root).http2_prior_knowledge();
    let client = client.resolve(&host, ([127, 0, 0, 1], platform.https).into()).build().unwrap();
    let upload = client.post(format!("https://{host}:{}/upload", platform.https)).body(vec![b'x'; LARGE]);
    let serve = async {
        let mut stream = comes(&service, b"\r\n\r\n").await;
        tokio::time::sleep(3 * SILENCE).await;
        stream.read_exact(&mut vec![0; LARGE]).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
        stream
    };
    let (answer, _stream) = timeout(LONGEST, async { tokio::join!(upload.send(), serve) }).await.unwrap();
    assert_eq!(answer.unwrap().status(), 200);
    assert_eq!(platform.metric(SILENT_BODY).await, 0.0);
}

#[tokio::test]
async fn a_request_that_would_upgrade_to_something_else_is_waited_for_when_the_gateway_stops() {
    let (mut platform, service) = platform(&[]).await;
    let mut raw = Raw::connect(&platform).await;
    let more = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n";
    raw.send(format!("GET /slow HTTP/1.1\r\nHost: api.{DOMAIN}\r\n{more}\r\n").as_bytes()).await;
    let mut asked = comes(&service, b"\r\n\r\n").await;
    platform.terminate();
    // Longer than what is no request is waited for.
    tokio::time::sleep(Duration::from_secs(4)).await;
    asked.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
    let got = raw.answer().await;
    assert_eq!((got.status, got.text().as_str()), (200, "ok"));
    assert!(timeout(LONGEST, platform.ended()).await.unwrap());
}

fn page(host: &str) -> String {
    format!("GET /slow HTTP/1.1\r\nHost: {host}.{DOMAIN}\r\n\r\n")
}

/// A request that a service has not answered yet, and the service's side of it.
async fn waits(platform: &Platform, service: &TcpListener, address: &str, host: &str) -> (Raw, TcpStream) {
    let mut raw = Raw::connect_from(platform, address).await;
    raw.send(page(host).as_bytes()).await;
    (raw, comes(service, b"\r\n\r\n").await)
}

async fn assert_refused(platform: &Platform, address: &str) {
    let mut raw = Raw::connect_from(platform, address).await;
    raw.send(page("api").as_bytes()).await;
    let got = timeout(SHOWN, raw.answer()).await.expect("it is refused at once");
    assert_eq!((got.status, got.json()["error"]["code"].as_str()), (503, Some("overloaded")));
    assert_eq!(got.field("retry-after"), Some("1"));
}

#[tokio::test]
async fn a_client_has_only_so_many_requests_in_the_hands_of_services() {
    let (platform, service) = platform(&["--max-forwarded=3", "--max-forwarded-per-address=2"]).await;
    let (mut raw, mut asked) = waits(&platform, &service, "127.0.0.1", "api").await;
    let _second = waits(&platform, &service, "127.0.0.1", "registry").await;
    assert_refused(&platform, "127.0.0.1").await;
    let _other = waits(&platform, &service, "127.0.0.9", "api").await;
    assert_refused(&platform, "127.0.0.10").await;
    for reason in ["forwarded", "forwarded_of_address"] {
        assert_eq!(platform.metric(&format!("chutes_gateway_refused_total{{reason=\"{reason}\"}}")).await, 1.0);
    }
    assert_eq!(platform.metric(FORWARDED).await, 3.0);
    // Else the next request comes on the same connection.
    asked.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
    assert_eq!(raw.answer().await.status, 200);
    platform.until(FORWARDED, |forwarded| forwarded == 2.0).await;
    raw.send(page("api").as_bytes()).await;
    comes(&service, b"\r\n\r\n").await;
}
