//! An instance that answers from a script, over plain sockets.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use protocol::envelope::Iv;
use protocol::envelope::instance::{OpenedRequest, open_request, seal_json_reply, seal_line, seal_typed_reply};
use protocol::sealing::InstanceKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// Bytes of one piece of a stream without end.
const FLOOD: usize = 16 << 10;

/// What the instance does with one request.
#[derive(Clone)]
pub(crate) enum Act {
    /// A stream of these pieces, and its end.
    Stream(Vec<String>),
    /// A stream of these pieces, after which the connection breaks.
    Die(Vec<String>),
    /// A stream of these pieces, after which nothing comes any more.
    Stall(Vec<String>),
    /// A stream whose pieces the test sends; it ends when the test drops the sender.
    Fed(Arc<tokio::sync::Mutex<mpsc::Receiver<String>>>),
    /// A stream without end, as fast as it is taken; counts the bytes.
    Flood(Arc<AtomicUsize>),
    /// A JSON answer.
    Json(String),
    /// A JSON answer after so much time.
    Late(Duration, String),
    /// An answer with a status and type of its own.
    Typed(u16, &'static str, Vec<u8>),
    /// An error in clear.
    Error(u16, &'static str),
    /// A stream of something that was never sealed.
    Garbage,
    /// The connection breaks before anything was answered.
    Close,
    /// The connection breaks after this, once so much time has passed.
    Break(&'static str, Duration),
    /// This is said as soon as the head of the request has come, and the connection closed.
    EarlyAndClose(&'static str),
    /// This is said as soon as the head of the request has come, and nothing is read or said any more.
    EarlyAndStay(&'static str),
}

/// A scripted instance.
pub(crate) struct Scripted {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Its key.
    pub(crate) key: InstanceKey,
    /// What it was asked, opened.
    pub(crate) requests: Arc<Mutex<Vec<OpenedRequest>>>,
    /// Who connected.
    pub(crate) peers: Arc<Mutex<Vec<IpAddr>>>,
    /// Connections that the other side closed while an answer was still going.
    pub(crate) abandoned: watch::Receiver<usize>,
    _running: JoinSet<()>,
}

/// What is still to be done.
type Script = Arc<Mutex<VecDeque<Act>>>;

struct Server {
    key: InstanceKey,
    requests: Arc<Mutex<Vec<OpenedRequest>>>,
    abandoned: watch::Sender<usize>,
    script: Script,
}

impl Scripted {
    /// Starts one that does these things one after the other, the last one again and again.
    pub(crate) async fn start(script: impl IntoIterator<Item = Act>) -> Self {
        Self::follow(Arc::new(Mutex::new(script.into_iter().collect()))).await
    }

    /// Starts two that follow one script together, whoever is asked.
    pub(crate) async fn pair(script: impl IntoIterator<Item = Act>) -> [Self; 2] {
        let script = Script::new(Mutex::new(script.into_iter().collect()));
        [Self::follow(script.clone()).await, Self::follow(script).await]
    }

    async fn follow(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (key, requests) = (InstanceKey::generate(), Arc::new(Mutex::new(Vec::new())));
        let (abandoned_sender, abandoned) = watch::channel(0);
        let server =
            Arc::new(Server { key: key.clone(), requests: requests.clone(), abandoned: abandoned_sender, script });
        let peers = Arc::<Mutex<Vec<IpAddr>>>::default();
        let connected = Arc::clone(&peers);
        let serving = async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, peer)) = listener.accept().await {
                connected.lock().unwrap().push(peer.ip());
                connections.spawn(server.clone().serve(stream));
            }
        };
        let mut running = JoinSet::new();
        running.spawn(serving);
        Self { address, key, requests, peers, abandoned, _running: running }
    }

    /// How many connections came.
    pub(crate) fn connections(&self) -> usize {
        self.peers.lock().unwrap().len()
    }

    /// How many requests came.
    pub(crate) fn asked(&self) -> usize {
        self.requests.lock().unwrap().len()
    }
}

impl Server {
    fn next(&self) -> Act {
        let mut script = self.script.lock().unwrap();
        if script.len() > 1 { script.pop_front().unwrap() } else { script.front().unwrap().clone() }
    }

    /// What is said before a request was read, and whether the connection stays open.
    fn early(&self) -> Option<(&'static str, bool)> {
        let early = match self.script.lock().unwrap().front().unwrap() {
            Act::EarlyAndClose(said) => Some((*said, false)),
            Act::EarlyAndStay(said) => Some((*said, true)),
            _ => None,
        };
        early.inspect(|_| _ = self.next())
    }

    async fn serve(self: Arc<Self>, mut stream: TcpStream) {
        let mut buffer = Vec::new();
        while let Some((path, length)) = read_head(&mut stream, &mut buffer).await {
            if let Some((said, stays)) = self.early() {
                let _ = stream.write_all(said.as_bytes()).await;
                return if stays {
                    std::future::pending().await
                };
            }
            let Some(body) = read_body(&mut stream, &mut buffer, length).await else { return };
            let request = open_request(&self.key, &path, &body).unwrap();
            let iv = request.iv;
            self.requests.lock().unwrap().push(request);
            if !self.answer(&mut stream, &iv).await {
                return;
            }
        }
    }

    /// Whether the connection goes on.
    async fn answer(&self, stream: &mut TcpStream, iv: &Iv) -> bool {
        match self.next() {
            Act::Stream(pieces) => {
                self.pieces(stream, iv, &pieces).await;
                stream.write_all(b"0\r\n\r\n").await.is_ok()
            }
            Act::Die(pieces) => {
                self.pieces(stream, iv, &pieces).await;
                false
            }
            Act::Stall(pieces) => {
                self.pieces(stream, iv, &pieces).await;
                self.wait_for_close(stream).await;
                false
            }
            Act::Fed(pieces) => self.feed(stream, iv, &pieces).await,
            Act::Flood(sent) => {
                self.flood(stream, iv, &sent).await;
                self.abandoned.send_modify(|count| *count += 1);
                false
            }
            Act::Json(json) => {
                whole(stream, 200, "application/json", seal_json_reply(&self.key, iv, json.as_bytes())).await
            }
            Act::Late(after, json) => {
                tokio::time::sleep(after).await;
                whole(stream, 200, "application/json", seal_json_reply(&self.key, iv, json.as_bytes())).await
            }
            Act::Typed(status, media_type, body) => {
                whole(stream, 200, "application/json", seal_typed_reply(&self.key, iv, status, media_type, &body)).await
            }
            Act::Error(status, body) => whole(stream, status, "application/json", body.to_owned()).await,
            Act::Garbage => {
                head(stream).await;
                chunk(stream, "not sealed at all\n").await;
                stream.write_all(b"0\r\n\r\n").await.is_ok()
            }
            Act::Close | Act::EarlyAndClose(_) | Act::EarlyAndStay(_) => false,
            Act::Break(said, after) => {
                tokio::time::sleep(after).await;
                let _ = stream.write_all(said.as_bytes()).await;
                false
            }
        }
    }

    async fn pieces(&self, stream: &mut TcpStream, iv: &Iv, pieces: &[String]) {
        head(stream).await;
        for piece in pieces {
            chunk(stream, &seal_line(&self.key, iv, piece.as_bytes())).await;
        }
    }

    async fn feed(&self, stream: &mut TcpStream, iv: &Iv, pieces: &tokio::sync::Mutex<mpsc::Receiver<String>>) -> bool {
        head(stream).await;
        let mut pieces = pieces.lock().await;
        let mut probe = [0; 1];
        loop {
            tokio::select! {
                piece = pieces.recv() => match piece {
                    Some(piece) => chunk(stream, &seal_line(&self.key, iv, piece.as_bytes())).await,
                    None => return stream.write_all(b"0\r\n\r\n").await.is_ok(),
                },
                read = stream.read(&mut probe) => {
                    assert_eq!(read.unwrap_or(0), 0, "nothing follows a request");
                    self.abandoned.send_modify(|count| *count += 1);
                    return false;
                }
            }
        }
    }

    async fn flood(&self, stream: &mut TcpStream, iv: &Iv, sent: &AtomicUsize) {
        head(stream).await;
        let line = seal_line(&self.key, iv, crate::client::content(&"x".repeat(FLOOD)).as_bytes());
        let chunk = format!("{:x}\r\n{line}\r\n", line.len());
        while stream.write_all(chunk.as_bytes()).await.is_ok() {
            sent.fetch_add(chunk.len(), Ordering::Relaxed);
        }
    }

    async fn wait_for_close(&self, stream: &mut TcpStream) {
        let mut probe = [0; 1];
        let _ = stream.read(&mut probe).await;
        self.abandoned.send_modify(|count| *count += 1);
    }
}

async fn head(stream: &mut TcpStream) {
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Miner: secret\r\n\r\n").await;
}

async fn chunk(stream: &mut TcpStream, line: &str) {
    let _ = stream.write_all(format!("{:x}\r\n{line}\r\n", line.len()).as_bytes()).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
}

async fn whole(stream: &mut TcpStream, status: u16, media_type: &str, body: String) -> bool {
    let head = format!(
        "HTTP/1.1 {status} Said So\r\nContent-Type: {media_type}\r\nContent-Length: {}\r\nX-Miner: secret\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).await.is_ok()
}

/// Path and length of the next request, none when the connection ends.
async fn read_head(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<(String, usize)> {
    let head = loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break buffer.drain(..end + 4).collect::<Vec<u8>>();
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(head).unwrap();
    let path = head.split(' ').nth(1).unwrap().to_owned();
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    Some((path, length.unwrap()))
}

/// The body of a request, none when the connection ends.
async fn read_body(stream: &mut TcpStream, buffer: &mut Vec<u8>, length: usize) -> Option<Vec<u8>> {
    while buffer.len() < length {
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
    Some(buffer.drain(..length).collect())
}
