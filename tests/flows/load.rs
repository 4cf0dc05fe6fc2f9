//! Clients that call all the time and remember what they got.

use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use protocol::headers;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use reqwest::{Client, Response};
use serde_json::{Value, json};
use stack::miner::Engine;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::scene::{Scene, User};

const LONGEST: Duration = Duration::from_secs(120);
const AFTER_FAILURE: Duration = Duration::from_millis(50);
/// How many calls of [`Load::start_any`] ask for an answer in one piece.
const IN_ONE_PIECE: f64 = 0.25;

/// How a call ended for its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// With `[DONE]`, or with all of an answer in one piece.
    Whole,
    /// In the middle of the answer, with an error event.
    Told,
    /// In the middle of the answer, without a word.
    Cut,
    /// With an answer that is no stream.
    Refused(u16),
    /// Without any answer.
    Nothing,
}

/// One call as its client saw it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) started: Instant,
    /// Its `X-Chutes-InvocationID`.
    pub(crate) call: Option<Uuid>,
    /// Content chunks received; all that it asked for, once anything of an answer in one piece came.
    pub(crate) tokens: u64,
    /// How many it asked for in one piece; none for a stream.
    pub(crate) in_one_piece: Option<u64>,
    pub(crate) end: End,
    /// The code of the refusal, if it was one.
    pub(crate) code: Option<String>,
}

impl Seen {
    pub(crate) fn nothing(started: Instant) -> Self {
        Self { started, call: None, tokens: 0, in_one_piece: None, end: End::Nothing, code: None }
    }
}

/// Clients at work.
pub(crate) struct Load {
    stop: watch::Sender<bool>,
    clients: JoinSet<Vec<Seen>>,
}

impl Load {
    /// Starts clients that take turns at the gateways; what they ask for follows from the seed.
    pub(crate) fn start(scene: &Scene, user: &User, clients: u64, seed: u64) -> Self {
        let urls = (0..scene.gateways()).map(|gateway| scene.url_at("llm", gateway)).collect();
        Self::at(urls, 0.0, scene, user, clients, seed)
    }

    /// The same over HTTP/2 or over HTTP/1.1 without TLS, some of it in one piece.
    pub(crate) fn start_any(scene: &Scene, user: &User, clients: u64, seed: u64) -> Self {
        let urls = |gateway| [scene.url_at("llm", gateway), scene.plain_url_at("llm", gateway)];
        Self::at((0..scene.gateways()).flat_map(urls).collect(), IN_ONE_PIECE, scene, user, clients, seed)
    }

    fn at(urls: Vec<String>, in_one_piece: f64, scene: &Scene, user: &User, clients: u64, seed: u64) -> Self {
        let stop = watch::Sender::new(false);
        let mut running = JoinSet::new();
        for number in 0..clients {
            let urls = urls.clone();
            let (web, key, model) = (scene.client(), user.key.clone(), scene.sample(Engine::Vllm).model.clone());
            let (mut choice, stopping) = (StdRng::seed_from_u64(seed ^ (number << 32)), stop.subscribe());
            running.spawn(async move {
                let mut seen = Vec::new();
                while !*stopping.borrow() {
                    let url = &urls[choice.random_range(0..urls.len())];
                    let (tokens, in_one_piece) = (choice.random_range(5..40), choice.random_bool(in_one_piece));
                    let call = call(&web, url, &key, Chat { model: &model, tokens, in_one_piece }).await;
                    if call.end != End::Whole {
                        sleep(AFTER_FAILURE).await;
                    }
                    seen.push(call);
                }
                seen
            });
        }
        Self { stop, clients: running }
    }

    /// Lets each client finish its call.
    pub(crate) async fn stop(self) -> Vec<Seen> {
        self.stop.send_replace(true);
        self.clients.join_all().await.concat()
    }
}

/// One streamed chat of so many tokens.
pub(crate) async fn ask(web: &Client, url: &str, key: &str, model: &str, tokens: u64) -> Seen {
    call(web, url, key, Chat { model, tokens, in_one_piece: false }).await
}

/// What a call asks for.
struct Chat<'a> {
    model: &'a str,
    tokens: u64,
    in_one_piece: bool,
}

async fn call(web: &Client, url: &str, key: &str, chat: Chat<'_>) -> Seen {
    let body = json!({
        "model": chat.model, "stream": !chat.in_one_piece, "max_tokens": chat.tokens,
        "messages": [{"role": "user", "content": "Go on."}],
    });
    let request = web.post(format!("{url}/v1/chat/completions")).bearer_auth(key).json(&body).timeout(LONGEST);
    let in_one_piece = chat.in_one_piece.then_some(chat.tokens);
    let seen = Seen { in_one_piece, ..Seen::nothing(Instant::now()) };
    let Ok(answer) = request.send().await else { return seen };
    let seen = Seen { call: call_of(&answer), ..seen };
    if !answer.status().is_success() {
        let end = End::Refused(answer.status().as_u16());
        let code = code_of(&answer.bytes().await.unwrap_or_default());
        return Seen { end, code, ..seen };
    }
    let mut pieces = answer.bytes_stream();
    let (tokens, end) = match in_one_piece {
        None => read(&mut pieces, u64::MAX).await,
        Some(tokens) => read_whole(&mut pieces, tokens).await,
    };
    Seen { tokens, end, ..seen }
}

/// The `X-Chutes-InvocationID` of an answer.
pub(crate) fn call_of(answer: &Response) -> Option<Uuid> {
    answer.headers().get(headers::INVOCATION_ID)?.to_str().ok()?.parse().ok()
}

/// The code in the body of a refusal.
pub(crate) fn code_of(body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    body.pointer("/error/code")?.as_str().map(str::to_owned)
}

/// The tokens of an answer in one piece, as it says itself.
pub(crate) fn completion_tokens(body: &[u8]) -> u64 {
    let answer: Value = serde_json::from_slice(body).unwrap();
    answer.pointer("/usage/completion_tokens").and_then(Value::as_u64).unwrap()
}

/// Reads an answer in one piece, which has so many tokens.
async fn read_whole(pieces: &mut (impl Stream<Item = reqwest::Result<Bytes>> + Unpin), tokens: u64) -> (u64, End) {
    let mut body = Vec::new();
    while let Some(piece) = pieces.next().await {
        match piece {
            Ok(piece) => body.extend_from_slice(&piece),
            Err(_) => return (if body.is_empty() { 0 } else { tokens }, End::Cut),
        }
    }
    (completion_tokens(&body), End::Whole)
}

/// Reads so many content chunks of a stream; their number, and how it ended up to there.
pub(crate) async fn read(
    pieces: &mut (impl Stream<Item = reqwest::Result<Bytes>> + Unpin),
    at_most: u64,
) -> (u64, End) {
    read_telling(pieces, at_most, |_| ()).await
}

/// The same, telling how many there are after each piece.
pub(crate) async fn read_telling(
    pieces: &mut (impl Stream<Item = reqwest::Result<Bytes>> + Unpin),
    at_most: u64,
    mut tell: impl FnMut(u64),
) -> (u64, End) {
    let mut reading = Reading::default();
    while let Some(Ok(piece)) = pieces.next().await {
        let end = reading.take(&piece, at_most);
        tell(reading.tokens);
        if let Some(end) = end {
            return (reading.tokens, end);
        }
    }
    (reading.tokens, End::Cut)
}

/// A stream of events as far as it has come.
#[derive(Default)]
pub(crate) struct Reading {
    rest: Vec<u8>,
    /// Content chunks so far.
    pub(crate) tokens: u64,
}

impl Reading {
    /// Takes in the next bytes; says how the stream has ended once it has, or once it has so many content chunks.
    pub(crate) fn take(&mut self, piece: &[u8], at_most: u64) -> Option<End> {
        self.rest.extend_from_slice(piece);
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            let Some(data) = line.trim_ascii().strip_prefix(b"data: ") else { continue };
            if data == b"[DONE]" {
                return Some(End::Whole);
            }
            let chunk: Value = serde_json::from_slice(data).unwrap();
            if chunk.get("error").is_some() {
                return Some(End::Told);
            }
            let content = chunk.pointer("/choices/0/delta/content").and_then(Value::as_str);
            self.tokens += u64::from(content.is_some_and(|content| !content.is_empty()));
            if self.tokens == at_most {
                return Some(End::Cut);
            }
        }
        None
    }
}
