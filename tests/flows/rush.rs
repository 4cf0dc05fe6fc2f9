//! Thousands of calls a second for few cycles: requests made once, kept connections, answers read as bytes.

use std::time::Duration;

use protocol::headers;
use serde_json::json;
use stack::miner::Engine;
use stack::platform::DOMAIN;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::load::{self, End, Reading, Seen};
use crate::scene::{Scene, User};

const LONGEST: Duration = Duration::from_secs(60);
const AFTER_FAILURE: Duration = Duration::from_millis(50);
/// Tokens of a stream.
const TOKENS: u64 = 20;
/// Those of an answer in one piece.
const WHOLE: u64 = 1;
const BUFFER: usize = 16 * 1024;

/// How fast, by how many, and what.
#[derive(Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) calls_per_second: f64,
    pub(crate) connections: u32,
    /// One call in so many is a stream.
    pub(crate) stream_every: u32,
}

/// Clients at work.
pub(crate) struct Rush {
    stop: watch::Sender<bool>,
    clients: JoinSet<Vec<Seen>>,
}

/// The two kinds of requests, ready to be sent.
#[derive(Clone)]
struct Requests {
    port: u16,
    whole: Vec<u8>,
    stream: Vec<u8>,
}

/// An answer's head, and what came behind it.
struct Head {
    status: u16,
    call: Option<uuid::Uuid>,
    /// None for a body in chunks.
    length: Option<usize>,
    rest: Vec<u8>,
}

impl Rush {
    /// Starts clients of a gateway's plain port; each sends its next call when its time has come and the last is over.
    pub(crate) fn start(scene: &Scene, gateway: usize, user: &User, pace: Pace) -> Self {
        let stop = watch::Sender::new(false);
        let requests = Requests::new(scene, gateway, user);
        let mut clients = JoinSet::new();
        let begin = Instant::now();
        for number in 0..pace.connections {
            let every = Duration::from_secs_f64(f64::from(pace.connections) / pace.calls_per_second);
            let first = begin + every.mul_f64(f64::from(number) / f64::from(pace.connections));
            clients.spawn(call_on(requests.clone(), first, every, pace.stream_every, number, stop.subscribe()));
        }
        Self { stop, clients }
    }

    /// Lets each client finish its call.
    pub(crate) async fn stop(self) -> Vec<Seen> {
        self.stop.send_replace(true);
        self.clients.join_all().await.concat()
    }
}

impl Requests {
    fn new(scene: &Scene, gateway: usize, user: &User) -> Self {
        let port = scene.platform.gateways[gateway].http_port;
        let model = &scene.sample(Engine::Vllm).model;
        let request = |stream: bool, tokens: u64| {
            let messages = json!([{"role": "user", "content": "Go on."}]);
            let body =
                json!({"model": model, "stream": stream, "max_tokens": tokens, "messages": messages}).to_string();
            let head = format!(
                "POST /v1/chat/completions HTTP/1.1\r\nHost: llm.{DOMAIN}:{port}\r\nAuthorization: Bearer {}\r\n\
                 Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                user.key,
                body.len()
            );
            (head + &body).into_bytes()
        };
        Self { port, whole: request(false, WHOLE), stream: request(true, TOKENS) }
    }
}

async fn call_on(
    requests: Requests,
    first: Instant,
    every: Duration,
    stream_every: u32,
    number: u32,
    stopping: watch::Receiver<bool>,
) -> Vec<Seen> {
    let (mut seen, mut connection, mut due, mut turn) = (Vec::new(), None, first, number);
    while !*stopping.borrow() {
        sleep_until(due).await;
        // Calls that were late are made up for at once, but none is made twice.
        due += every;
        turn += 1;
        let stream = turn % stream_every == 0;
        let call = timeout(LONGEST, call(&mut connection, &requests, stream)).await;
        let call = call.unwrap_or_else(|_| Seen::nothing(Instant::now()));
        let call = Seen { in_one_piece: (!stream).then_some(WHOLE), ..call };
        if !matches!(call.end, End::Whole | End::Told) {
            connection = None;
        }
        if call.end != End::Whole {
            sleep(AFTER_FAILURE).await;
        }
        seen.push(call);
    }
    seen
}

/// One call on the connection, or on a new one.
async fn call(connection: &mut Option<TcpStream>, requests: &Requests, stream: bool) -> Seen {
    let started = Instant::now();
    if connection.is_none() {
        *connection = TcpStream::connect(("127.0.0.1", requests.port)).await.ok();
    }
    let Some(socket) = connection.as_mut() else { return Seen::nothing(started) };
    let request = if stream { &requests.stream } else { &requests.whole };
    if socket.write_all(request).await.is_err() {
        return Seen::nothing(started);
    }
    let Some(head) = read_head(socket).await else { return Seen::nothing(started) };
    let (status, id) = (head.status, head.call);
    let seen = |tokens, end| Seen { call: id, tokens, end, ..Seen::nothing(started) };
    match (head.length, status) {
        (Some(_), 200) => match read_whole(socket, head).await {
            Some(body) => seen(load::completion_tokens(&body), End::Whole),
            None => seen(0, End::Cut),
        },
        (None, 200) => {
            let (tokens, end) = read_chunks(socket, head.rest).await;
            seen(tokens, end)
        }
        _ => {
            let body = read_whole(socket, head).await.unwrap_or_default();
            Seen { code: load::code_of(&body), ..seen(0, End::Refused(status)) }
        }
    }
}

async fn read_head(socket: &mut TcpStream) -> Option<Head> {
    let mut bytes = Vec::with_capacity(BUFFER);
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
        if socket.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let text = std::str::from_utf8(&bytes[..end]).ok()?;
    let field = |wanted: &str| {
        let named = |line: &&str| line.split_once(':').is_some_and(|(name, _)| name.eq_ignore_ascii_case(wanted));
        Some(text.lines().find(named)?.split_once(':')?.1.trim())
    };
    let status = text.split(' ').nth(1)?.parse().ok()?;
    let call = field(headers::INVOCATION_ID).and_then(|id| id.parse().ok());
    let length = field("content-length").and_then(|length| length.parse().ok());
    Some(Head { status, call, length, rest: bytes.split_off(end + 4) })
}

async fn read_whole(socket: &mut TcpStream, head: Head) -> Option<Vec<u8>> {
    let mut body = head.rest;
    while body.len() < head.length? {
        if socket.read_buf(&mut body).await.ok()? == 0 {
            return None;
        }
    }
    Some(body)
}

/// Reads a stream to the end of its chunks, so that the connection can be used again.
async fn read_chunks(socket: &mut TcpStream, mut bytes: Vec<u8>) -> (u64, End) {
    let (mut reading, mut end) = (Reading::default(), None);
    loop {
        while let Some((chunk, used)) = first_chunk(&bytes) {
            if chunk.is_empty() {
                return (reading.tokens, end.unwrap_or(End::Cut));
            }
            end = end.or_else(|| reading.take(chunk, u64::MAX));
            bytes.drain(..used);
        }
        if socket.read_buf(&mut bytes).await.is_ok_and(|length| length > 0) {
            continue;
        }
        return (reading.tokens, end.unwrap_or(End::Cut));
    }
}

/// The first whole chunk, and how many bytes it takes.
fn first_chunk(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let line = bytes.windows(2).position(|two| two == b"\r\n")?;
    let length = usize::from_str_radix(std::str::from_utf8(&bytes[..line]).unwrap().trim(), 16).unwrap();
    let used = line + 2 + length + 2;
    Some((bytes.get(line + 2..line + 2 + length)?, used)).filter(|_| bytes.len() >= used)
}
