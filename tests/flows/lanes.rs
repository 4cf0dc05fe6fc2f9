//! A load driver that costs little itself: calls on connections that stay open, at a pace that waits for nobody.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;
use stack::miner::Engine;
use stack::platform::DOMAIN;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use uuid::Uuid;

use crate::load::{self, End, Seen};
use crate::scene::{Scene, User};

const LONGEST: Duration = Duration::from_secs(60);
/// A call whose moment has passed by this much is missed: all connections are busy.
const TOO_LATE: Duration = Duration::from_millis(500);
const AFTER_FAILURE: Duration = Duration::from_millis(100);
/// The end of a stream, in which its tokens are named.
const TAIL: usize = 2 << 10;
/// Most bytes of a stream that are read at a time.
const AT_A_TIME: usize = 16 << 10;
/// What ends a body in chunks.
const LAST_CHUNK: &[u8] = b"\r\n0\r\n\r\n";
/// How many connections come from one address; the gateway takes 1,024 of each.
const OF_AN_ADDRESS: usize = 1000;

/// A load to be offered.
pub(crate) struct Offered {
    lanes: usize,
    lasts: Duration,
    /// Calls per second; none: each connection calls again as soon as it is answered.
    rate: Option<f64>,
}

/// What each call asks for: a chat of so many tokens.
#[derive(Clone, Copy)]
pub(crate) enum Chat {
    InOnePiece(u64),
    Streamed(u64),
}

/// What became of a load.
pub(crate) struct Paced {
    pub(crate) seen: Vec<Seen>,
    /// How long each call took, in the order of `seen`.
    took: Vec<Duration>,
    /// When calls were due that were not made, because every connection still waited for an answer.
    missed: Vec<Instant>,
    pub(crate) offered_rate: f64,
    begins: Instant,
    lasts: Duration,
}

/// What one connection has done.
#[derive(Default)]
struct Made {
    calls: Vec<(Seen, Duration)>,
    missed: Vec<Instant>,
}

/// One connection over plain HTTP/1.1.
struct Lane {
    from: Ipv4Addr,
    port: u16,
    chat: Chat,
    request: Arc<[u8]>,
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
}

impl Offered {
    /// Calls without a pause on so many connections.
    pub(crate) fn all_the_time(lanes: usize, lasts: Duration) -> Self {
        Self { lanes, lasts, rate: None }
    }

    /// Calls at an even pace, whatever becomes of them, on at most so many connections.
    pub(crate) fn paced(lanes: usize, rate: f64, lasts: Duration) -> Self {
        Self { lanes, lasts, rate: Some(rate) }
    }

    /// Offers it to the gateways in turn.
    pub(crate) async fn run(self, scene: &Scene, user: &User, chat: Chat) -> Paced {
        let request: Arc<[u8]> = request(scene, user, chat).into();
        let ports: Vec<u16> = scene.platform.gateways.iter().map(|gateway| gateway.http_port).collect();
        let (begins, next) = (Instant::now(), Arc::new(AtomicU64::new(0)));
        let mut lanes = JoinSet::new();
        for number in 0..self.lanes {
            let from = Ipv4Addr::new(127, 0, 0, 1 + u8::try_from(number / OF_AN_ADDRESS).unwrap());
            let lane = Lane::new(from, ports[number % ports.len()], chat, Arc::clone(&request));
            lanes.spawn(lane.work(Arc::clone(&next), self.rate, begins, begins + self.lasts));
        }
        let (mut calls, mut missed) = (Vec::new(), Vec::new());
        for made in lanes.join_all().await {
            calls.extend(made.calls);
            missed.extend(made.missed);
        }
        let (seen, took) = calls.into_iter().unzip();
        Paced { seen, took, missed, offered_rate: self.rate.unwrap_or_default(), begins, lasts: self.lasts }
    }
}

impl Paced {
    /// When it was over: what was in flight then could still end.
    pub(crate) fn ends(&self) -> Instant {
        self.begins + self.lasts
    }

    /// Calls per second that were made.
    pub(crate) fn sent(&self) -> f64 {
        self.seen.len() as f64 / self.lasts.as_secs_f64()
    }

    /// Calls per second that ended well while the load was offered.
    pub(crate) fn goodput(&self) -> f64 {
        self.goodput_within(self.begins, self.lasts)
    }

    /// The same of some part of that time.
    pub(crate) fn goodput_within(&self, from: Instant, time: Duration) -> f64 {
        let whole = self.seen.iter().zip(&self.took).filter(|(call, _)| call.end == End::Whole);
        let ended = whole.map(|(call, took)| call.started + *took);
        ended.filter(|ended| (from..=from + time).contains(ended)).count() as f64 / time.as_secs_f64()
    }

    /// When calls began, or should have begun, that did not end well.
    pub(crate) fn unserved(&self) -> impl Iterator<Item = Instant> {
        let failed = self.seen.iter().filter(|call| call.end != End::Whole).map(|call| call.started);
        failed.chain(self.missed.iter().copied())
    }

    /// How long such calls took, the fastest first.
    pub(crate) fn times(&self, which: impl Fn(&Seen) -> bool) -> Vec<Duration> {
        let both = self.seen.iter().zip(&self.took);
        let mut times: Vec<Duration> = both.filter(|(call, _)| which(call)).map(|(_, took)| *took).collect();
        times.sort();
        times
    }
}

impl Lane {
    fn new(from: Ipv4Addr, port: u16, chat: Chat, request: Arc<[u8]>) -> Self {
        Self { from, port, chat, request, stream: None, buffer: Vec::new() }
    }

    /// A call of which nothing is known yet.
    fn nothing(&self, started: Instant) -> Seen {
        let in_one_piece = match self.chat {
            Chat::InOnePiece(tokens) => Some(tokens),
            Chat::Streamed(_) => None,
        };
        Seen { in_one_piece, ..Seen::nothing(started) }
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((self.from, 0).into())?;
        socket.connect((Ipv4Addr::LOCALHOST, self.port).into()).await
    }

    async fn work(mut self, next: Arc<AtomicU64>, rate: Option<f64>, begins: Instant, ends: Instant) -> Made {
        let mut made = Made::default();
        loop {
            if let Some(rate) = rate {
                let moment = begins + Duration::from_secs_f64(next.fetch_add(1, Ordering::Relaxed) as f64 / rate);
                if moment >= ends {
                    return made;
                }
                if moment + TOO_LATE < Instant::now() {
                    made.missed.push(moment);
                    continue;
                }
                sleep_until(moment).await;
            } else if Instant::now() >= ends {
                return made;
            }
            let started = Instant::now();
            let call = timeout(LONGEST, self.call(started)).await.ok().flatten();
            if call.is_none() {
                self.stream = None;
                sleep(AFTER_FAILURE).await;
            }
            let call = call.unwrap_or_else(|| self.nothing(started));
            made.calls.push((call, started.elapsed()));
        }
    }

    /// One call; none if its connection breaks.
    async fn call(&mut self, started: Instant) -> Option<Seen> {
        if self.stream.is_none() {
            self.buffer.clear();
            self.stream = Some(self.connect().await.ok()?);
        }
        self.stream.as_mut()?.write_all(&self.request).await.ok()?;
        let end = loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                break end + 4;
            }
            self.read_some().await?;
        };
        let head = String::from_utf8(self.buffer.drain(..end).collect()).ok()?.to_ascii_lowercase();
        let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let (body, is_whole) = match field("content-length") {
            Some(length) => (self.body(length.parse().ok()?).await?, true),
            None => {
                let tail = self.tail_of_stream().await?;
                let is_whole = find(&tail, b"data: [DONE]").is_some();
                (tail, is_whole)
            }
        };
        if field("connection") == Some("close") {
            self.stream = None;
        }
        let status: u16 = head.split(' ').nth(1)?.parse().ok()?;
        let call: Option<Uuid> = field(protocol::headers::INVOCATION_ID).and_then(|id| id.parse().ok());
        let seen = Seen { call, ..self.nothing(started) };
        if status != 200 {
            return Some(Seen { end: End::Refused(status), code: load::code_of(&body), ..seen });
        }
        let end = if is_whole { End::Whole } else { End::Told };
        Some(Seen { tokens: after(&body, "\"completion_tokens\":")?, end, ..seen })
    }

    async fn body(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < length {
            self.read_some().await?;
        }
        Some(self.buffer.drain(..length).collect())
    }

    /// Reads a stream to its end, and keeps no more of it than that.
    async fn tail_of_stream(&mut self) -> Option<Vec<u8>> {
        while !self.buffer.ends_with(LAST_CHUNK) {
            self.buffer.drain(..self.buffer.len().saturating_sub(TAIL));
            self.buffer.reserve(AT_A_TIME);
            self.read_some().await?;
        }
        Some(std::mem::take(&mut self.buffer))
    }

    /// None at the end of the connection.
    async fn read_some(&mut self) -> Option<()> {
        let read = self.stream.as_mut()?.read_buf(&mut self.buffer).await.ok()?;
        (read > 0).then_some(())
    }
}

fn request(scene: &Scene, user: &User, chat: Chat) -> Vec<u8> {
    let (model, messages) = (&scene.sample(Engine::Vllm).model, json!([{"role": "user", "content": "Go on."}]));
    let body = match chat {
        Chat::InOnePiece(tokens) => {
            json!({"model": model, "stream": false, "max_tokens": tokens, "messages": messages})
        }
        Chat::Streamed(tokens) => {
            let usage = json!({"include_usage": true});
            json!({"model": model, "stream": true, "stream_options": usage, "max_tokens": tokens, "messages": messages})
        }
    }
    .to_string();
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: llm.{DOMAIN}\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        user.key,
        body.len()
    )
    .into_bytes()
}

/// The number behind these words.
fn after(body: &[u8], words: &str) -> Option<u64> {
    let text = std::str::from_utf8(body).ok()?;
    let digits = text.split(words).nth(1)?.trim_start();
    digits.split(|character: char| !character.is_ascii_digit()).next()?.parse().ok()
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
