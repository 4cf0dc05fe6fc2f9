//! A service that keeps every request as it came, strictly read: what it sees is what an edge made of a client's bytes.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok";

/// A request with this in its target is answered before its body is read.
pub(crate) const EARLY: &str = "/early-";

/// A recording service on a port of its own.
pub(crate) struct Service {
    pub(crate) address: SocketAddr,
    requests: Requests,
    _running: JoinSet<()>,
}

/// A request as it came.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Passed {
    /// Method and target.
    pub(crate) line: String,
    /// The whole head, lower case.
    pub(crate) head: String,
    /// None as long as it has not come whole; chunks are joined.
    pub(crate) body: Option<Vec<u8>>,
}

type Requests = Arc<Mutex<Vec<Passed>>>;

impl Service {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, requests) = (listener.local_addr().unwrap(), Requests::default());
        let kept = requests.clone();
        let mut running = JoinSet::new();
        running.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, kept.clone()));
            }
        });
        Self { address, requests, _running: running }
    }

    /// The requests that have this text in their heads.
    pub(crate) fn requests_with(&self, text: &str) -> Vec<Passed> {
        self.requests.lock().unwrap().iter().filter(|passed| passed.head.contains(text)).cloned().collect()
    }
}

async fn serve(mut stream: TcpStream, requests: Requests) {
    let mut bytes = Vec::new();
    loop {
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
            if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                return;
            }
            continue;
        };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        bytes.drain(..end + 4);
        let line = head.lines().next().and_then(|line| line.rsplit_once(' ')).map_or(&*head, |(line, _)| line);
        let (line, head) = (line.to_owned(), head.to_ascii_lowercase());
        let early = line.contains(EARLY);
        let number = {
            let mut requests = requests.lock().unwrap();
            requests.push(Passed { line, head: head.clone(), body: None });
            requests.len() - 1
        };
        if early && stream.write_all(ANSWER).await.is_err() {
            return;
        }
        let Some(body) = read_body(&head, &mut stream, &mut bytes).await else { return };
        requests.lock().unwrap()[number].body = Some(body);
        if !early && stream.write_all(ANSWER).await.is_err() {
            return;
        }
    }
}

/// Reads a body off; none if it breaks off or cannot be read.
async fn read_body(head: &str, stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<Vec<u8>> {
    let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    if field("transfer-encoding").is_some() {
        let mut body = Vec::new();
        loop {
            let line = until(stream, bytes, b"\r\n").await?;
            let size = usize::from_str_radix(std::str::from_utf8(&line).ok()?, 16).ok()?;
            let chunk = take(stream, bytes, size + 2).await?;
            body.extend_from_slice(&chunk[..size]);
            if size == 0 {
                return Some(body);
            }
        }
    }
    let length = field("content-length").map_or(Some(0), |length| length.trim().parse().ok())?;
    take(stream, bytes, length).await
}

async fn until(stream: &mut TcpStream, bytes: &mut Vec<u8>, mark: &[u8]) -> Option<Vec<u8>> {
    loop {
        if let Some(end) = bytes.windows(mark.len()).position(|window| window == mark) {
            let line = bytes.drain(..end).collect();
            bytes.drain(..mark.len());
            return Some(line);
        }
        more(stream, bytes).await?;
    }
}

async fn take(stream: &mut TcpStream, bytes: &mut Vec<u8>, length: usize) -> Option<Vec<u8>> {
    while bytes.len() < length {
        more(stream, bytes).await?;
    }
    Some(bytes.drain(..length).collect())
}

async fn more(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<()> {
    (stream.read_buf(bytes).await.ok()? > 0).then_some(())
}
