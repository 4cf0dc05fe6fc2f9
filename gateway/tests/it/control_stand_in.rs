//! Stands in for control's internal look-up: answers what it was told to, and counts the questions.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use protocol::keys::Key;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// The credential it wants to see.
pub(crate) const CREDENTIAL: &str = "internal-credential";

/// A small HTTP server.
pub(crate) struct ControlStandIn {
    pub(crate) url: String,
    state: Arc<Mutex<State>>,
    _running: JoinSet<()>,
}

#[derive(Default)]
struct State {
    /// By path.
    entries: HashMap<String, Value>,
    questions: usize,
    fails: bool,
}

impl ControlStandIn {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::<Mutex<State>>::default();
        let mut running = JoinSet::new();
        let shared = Arc::clone(&state);
        running.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(answer(stream, Arc::clone(&shared)));
            }
        });
        Self { url, state, _running: running }
    }

    /// Makes an entry known.
    pub(crate) fn knows(&self, key: &Key, version: u64, entry: &impl Serialize) {
        let path = format!("/internal/principals/{}", key.as_str().replacen(':', "/", 1));
        self.state.lock().unwrap().entries.insert(path, json!({ "v": version, "d": entry }));
    }

    /// Answers 500 from now on.
    pub(crate) fn fails(&self) {
        self.state.lock().unwrap().fails = true;
    }

    pub(crate) fn questions(&self) -> usize {
        self.state.lock().unwrap().questions
    }
}

async fn answer(mut stream: TcpStream, state: Arc<Mutex<State>>) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
            return;
        }
    }
    let request = String::from_utf8(request).unwrap();
    let path = request.split(' ').nth(1).unwrap();
    let authorized = request.to_lowercase().contains(&format!("authorization: bearer {CREDENTIAL}\r\n"));
    let (status, body) = {
        let mut state = state.lock().unwrap();
        state.questions += 1;
        match state.entries.get(path) {
            _ if state.fails => ("500 Internal Server Error", String::new()),
            _ if !authorized => ("401 Unauthorized", String::new()),
            Some(entry) => ("200 OK", entry.to_string()),
            None => ("404 Not Found", String::new()),
        }
    };
    let length = body.len();
    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
    // A client that went away needs no answer.
    let _ = stream.write_all(answer.as_bytes()).await;
}
