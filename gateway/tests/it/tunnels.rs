//! What passes through to our services unbuffered: WebSockets, large uploads and large downloads, over TLS.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::frames::tls;
use crate::platform::{DOMAIN, Platform, Wishes};

const MEBI: usize = 1 << 20;
const LARGE: usize = 100 * MEBI;
/// Bytes that buffers of the kernel may hold on both sides of the gateway.
const IN_BUFFERS: usize = 24 * MEBI;
const LONGEST: Duration = Duration::from_secs(60);

/// A service of ours, as a socket of the test.
struct Service(TcpListener);

impl Service {
    async fn start() -> (Self, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (Self(listener), address)
    }

    /// The next request, read to the end of its head.
    async fn request(&self) -> (TcpStream, String) {
        let (mut stream, _) = timeout(LONGEST, self.0.accept()).await.unwrap().unwrap();
        let head = head(&mut stream).await;
        (stream, head)
    }
}

async fn platform(api: SocketAddr, settings: &[String]) -> Platform {
    Platform::start(&[], Wishes { api: Some(api), settings: settings.to_vec(), ..Wishes::default() }).await
}

/// A head, lower case; not one byte more is read.
async fn head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(timeout(LONGEST, stream.read_u8()).await.unwrap().unwrap());
    }
    String::from_utf8(head).unwrap().to_ascii_lowercase()
}

fn resident(platform: &Platform) -> usize {
    let facts = std::fs::read_to_string(format!("/proc/{}/statm", platform.pid())).unwrap();
    facts.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * rustix::param::page_size()
}

/// One frame of a client, under a mask that changes nothing.
fn frame(code: u8, payload: &[u8]) -> Vec<u8> {
    let length = payload.len() as u64;
    let mut frame = vec![0x80 | code, 0x80 | 127];
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

async fn upgraded(platform: &Platform, service: &Service) -> (impl AsyncRead + AsyncWrite + Unpin, TcpStream) {
    let mut client = tls(platform, "ws", "http/1.1").await.unwrap();
    let ask = format!(
        "GET /socket.io/?transport=websocket HTTP/1.1\r\nHost: ws.{DOMAIN}\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    client.write_all(ask.as_bytes()).await.unwrap();
    let (mut server, asked) = service.request().await;
    assert!(asked.contains("upgrade: websocket") && asked.contains("sec-websocket-key: dghl"), "{asked}");
    let accept = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    server.write_all(accept).await.unwrap();
    let answer = head(&mut client).await;
    assert!(answer.starts_with("http/1.1 101") && answer.contains("sec-websocket-accept: s3pplm"), "{answer}");
    (client, server)
}

/// Sends bytes one way and fails unless just they arrive.
async fn passes(from: &mut (impl AsyncWrite + Unpin), to: &mut (impl AsyncRead + Unpin), bytes: &[u8]) {
    let mut got = vec![0; bytes.len()];
    let write = async {
        from.write_all(bytes).await.unwrap();
        from.flush().await.unwrap();
    };
    let (read, ()) = timeout(LONGEST, async { tokio::join!(to.read_exact(&mut got), write) }).await.unwrap();
    read.unwrap();
    assert!(got == bytes, "{} bytes arrived changed", bytes.len());
}

#[tokio::test]
async fn a_websocket_passes_every_byte_both_ways_and_may_be_silent() {
    let (service, address) = Service::start().await;
    let settings = [format!("--ws-upstream={address}"), "--client-silence=0.3".into()];
    let platform = platform(address, &settings).await;
    let (mut client, mut server) = upgraded(&platform, &service).await;
    let noise: Vec<u8> = (0..4 * MEBI).map(|number| (number * 31 % 251) as u8).collect();
    for payload in [&b"hello"[..], &noise, b""] {
        let framed = frame(2, payload);
        passes(&mut client, &mut server, &framed).await;
        passes(&mut server, &mut client, &framed).await;
    }
    // Longer than a body may be silent.
    tokio::time::sleep(Duration::from_secs(1)).await;
    passes(&mut client, &mut server, &frame(1, b"still there")).await;
    passes(&mut server, &mut client, &frame(1, b"yes")).await;
    let going_away = frame(8, &1001_u16.to_be_bytes());
    passes(&mut client, &mut server, &going_away).await;
    passes(&mut server, &mut client, &going_away).await;
    drop(server);
    assert_eq!(timeout(LONGEST, client.read(&mut [0; 1])).await.unwrap().unwrap_or_default(), 0);
}

#[tokio::test]
async fn a_websocket_ends_at_the_service_when_its_client_leaves() {
    let (service, address) = Service::start().await;
    let platform = platform(address, &[format!("--ws-upstream={address}")]).await;
    let (client, mut server) = upgraded(&platform, &service).await;
    drop(client);
    assert_eq!(timeout(LONGEST, server.read(&mut [0; 1])).await.unwrap().unwrap_or_default(), 0);
}

fn post(length: usize) -> String {
    format!("POST /upload HTTP/1.1\r\nHost: api.{DOMAIN}\r\nContent-Length: {length}\r\n\r\n")
}

/// Writes bytes until that takes a second; how many were taken.
async fn fill(to: &mut (impl AsyncWrite + Unpin), at_most: usize) -> usize {
    let piece = vec![b'x'; 64 << 10];
    let mut taken = 0;
    while taken < at_most {
        let next = piece.len().min(at_most - taken);
        match timeout(Duration::from_secs(1), to.write(&piece[..next])).await {
            Ok(written) => taken += written.unwrap(),
            Err(_) => break,
        }
    }
    taken
}

async fn read_off(from: &mut (impl AsyncRead + Unpin), bytes: usize) {
    let mut left = bytes;
    let mut buffer = vec![0; 64 << 10];
    while left > 0 {
        let most = buffer.len().min(left);
        let read = timeout(LONGEST, from.read(&mut buffer[..most])).await.unwrap().unwrap();
        assert!(read > 0, "{left} bytes are missing");
        left -= read;
    }
}

#[tokio::test]
#[expect(clippy::print_stdout, reason = "the figures are half of what it is for")]
async fn a_large_upload_is_on_its_way_while_it_is_sent_and_waits_for_a_slow_service() {
    let (service, address) = Service::start().await;
    let platform = platform(address, &[]).await;
    let mut client = tls(&platform, "api", "http/1.1").await.unwrap();
    let before = resident(&platform);
    client.write_all(post(LARGE).as_bytes()).await.unwrap();
    client.write_all(b"first").await.unwrap();
    client.flush().await.unwrap();
    let (mut server, _) = service.request().await;
    let mut first = [0; 5];
    timeout(LONGEST, server.read_exact(&mut first)).await.unwrap().unwrap();
    assert_eq!(&first, b"first");
    // The service reads nothing: the client must come to a stop.
    let taken = fill(&mut client, LARGE - 5).await;
    assert!(taken < IN_BUFFERS, "the gateway has taken {taken} bytes that nobody reads");
    let held = resident(&platform).saturating_sub(before);
    let rest = LARGE - 5;
    let send = async {
        let piece = vec![b'x'; 64 << 10];
        let mut left = rest - taken;
        while left > 0 {
            let next = piece.len().min(left);
            client.write_all(&piece[..next]).await.unwrap();
            left -= next;
        }
        client.flush().await.unwrap();
    };
    timeout(LONGEST, async { tokio::join!(send, read_off(&mut server, rest)) }).await.unwrap();
    let grown = resident(&platform).saturating_sub(before).max(held);
    println!("upload of {LARGE} bytes: {taken} in buffers while nobody reads, the gateway grew by {grown} bytes");
    assert!(grown <= 4 * MEBI, "the gateway grew by {grown} bytes");
    server.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
    assert!(head(&mut client).await.starts_with("http/1.1 200"));
}

#[tokio::test]
#[expect(clippy::print_stdout, reason = "the figures are half of what it is for")]
async fn a_large_download_is_on_its_way_while_it_is_sent_and_waits_for_a_slow_client() {
    let (service, address) = Service::start().await;
    let platform = platform(address, &[]).await;
    let mut client = tls(&platform, "api", "http/1.1").await.unwrap();
    let before = resident(&platform);
    client.write_all(format!("GET /file HTTP/1.1\r\nHost: api.{DOMAIN}\r\n\r\n").as_bytes()).await.unwrap();
    let (mut server, _) = service.request().await;
    server.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n").as_bytes()).await.unwrap();
    // The framework holds back the first kibibyte of an answer whose length is known.
    let first = 64 << 10;
    server.write_all(&vec![b'x'; first]).await.unwrap();
    assert!(head(&mut client).await.starts_with("http/1.1 200"));
    read_off(&mut client, first / 2).await;
    let taken = fill(&mut server, LARGE - first).await;
    assert!(taken < IN_BUFFERS, "the gateway has taken {taken} bytes that nobody reads");
    let held = resident(&platform).saturating_sub(before);
    let send = async {
        let piece = vec![b'x'; LARGE - first - taken];
        server.write_all(&piece).await.unwrap();
    };
    timeout(LONGEST, async { tokio::join!(send, read_off(&mut client, LARGE - first / 2)) }).await.unwrap();
    let grown = resident(&platform).saturating_sub(before).max(held);
    println!("download of {LARGE} bytes: {taken} in buffers while nobody reads, the gateway grew by {grown} bytes");
    assert!(grown <= 4 * MEBI, "the gateway grew by {grown} bytes");
}

#[tokio::test]
async fn an_answer_before_the_upload_has_ended_reaches_the_client() {
    let (service, address) = Service::start().await;
    let platform = platform(address, &[]).await;
    for _ in 0..5 {
        let mut client = tls(&platform, "api", "http/1.1").await.unwrap();
        client.write_all(post(LARGE).as_bytes()).await.unwrap();
        client.write_all(&vec![b'x'; MEBI]).await.unwrap();
        client.flush().await.unwrap();
        let (mut server, _) = service.request().await;
        let answer = b"HTTP/1.1 413 Payload Too Large\r\nContent-Length: 9\r\nConnection: close\r\n\r\ntoo large";
        server.write_all(answer).await.unwrap();
        drop(server);
        assert!(head(&mut client).await.starts_with("http/1.1 413"));
        let mut words = [0; 9];
        timeout(LONGEST, client.read_exact(&mut words)).await.unwrap().unwrap();
        assert_eq!(&words, b"too large");
    }
}

#[tokio::test]
async fn a_service_that_dies_in_an_upload_is_a_clear_502() {
    let (service, address) = Service::start().await;
    let platform = platform(address, &[]).await;
    let mut client = tls(&platform, "api", "http/1.1").await.unwrap();
    client.write_all(post(MEBI).as_bytes()).await.unwrap();
    client.write_all(b"first").await.unwrap();
    client.flush().await.unwrap();
    let (mut server, _) = service.request().await;
    read_off(&mut server, 5).await;
    drop(server);
    let answer = head(&mut client).await;
    assert!(answer.starts_with("http/1.1 502") && answer.contains("application/json"), "{answer}");
}

#[tokio::test]
async fn a_service_that_dies_in_an_answer_cuts_it() {
    let (service, address) = Service::start().await;
    let platform = platform(address, &[]).await;
    let mut client = tls(&platform, "api", "http/1.1").await.unwrap();
    client.write_all(format!("GET /file HTTP/1.1\r\nHost: api.{DOMAIN}\r\n\r\n").as_bytes()).await.unwrap();
    let (mut server, _) = service.request().await;
    server.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n").await.unwrap();
    assert!(head(&mut client).await.starts_with("http/1.1 200"));
    read_off(&mut client, b"5\r\nfirst\r\n".len()).await;
    drop(server);
    let mut rest = Vec::new();
    let _ = timeout(LONGEST, client.read_to_end(&mut rest)).await.unwrap();
    assert!(rest.is_empty(), "a cut answer looks whole: {rest:?}");
}

/// Whether the kernel looks after the connection that this client has to this port, at its other end.
fn is_looked_after(port: u16, client: u16) -> bool {
    const KEEPALIVE: &str = "02";
    let (local, remote) = (format!(":{port:04X}"), format!(":{client:04X}"));
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let mut sockets = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    sockets
        .any(|socket| socket[1].ends_with(&local) && socket[2].ends_with(&remote) && socket[5].starts_with(KEEPALIVE))
}

#[tokio::test]
async fn dead_clients_of_silent_connections_are_found() {
    let platform = platform(([127, 0, 0, 1], 9).into(), &[]).await;
    let plain = TcpStream::connect(("127.0.0.1", platform.http)).await.unwrap();
    let tls = tls(&platform, "api", "http/1.1").await.unwrap();
    let ports = [(platform.http, plain.local_addr()), (platform.https, tls.get_ref().0.local_addr())];
    for (port, client) in ports {
        let client = client.unwrap().port();
        let watch = async {
            while !is_looked_after(port, client) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(LONGEST, watch).await.expect("the kernel asks whether the client lives");
    }
}
