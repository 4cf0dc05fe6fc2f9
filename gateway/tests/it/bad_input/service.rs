//! A service that keeps every request as it came, strictly read: what it sees is what an edge made of a client's bytes.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok";

/// A recording service on a port of its own.
pub(crate) struct Service {
    pub(crate) address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    _running: JoinSet<()>,
}

impl Service {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, heads) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<String>>>::default());
        let kept = heads.clone();
        let mut running = JoinSet::new();
        running.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, kept.clone()));
            }
        });
        Self { address, heads, _running: running }
    }

    /// The heads, lower case, of the requests that have this text in them.
    pub(crate) fn heads_with(&self, text: &str) -> Vec<String> {
        self.heads.lock().unwrap().iter().filter(|head| head.contains(text)).cloned().collect()
    }
}

async fn serve(mut stream: TcpStream, heads: Arc<Mutex<Vec<String>>>) {
    let mut bytes = Vec::new();
    loop {
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
            if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                return;
            }
            continue;
        };
        let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        bytes.drain(..end + 4);
        heads.lock().unwrap().push(head.clone());
        if read_body(&head, &mut stream, &mut bytes).await.is_none() || stream.write_all(ANSWER).await.is_err() {
            return;
        }
    }
}

/// Reads a body off; none if it breaks off or cannot be read.
async fn read_body(head: &str, stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<()> {
    let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    if field("transfer-encoding").is_some() {
        loop {
            let line = until(stream, bytes, b"\r\n").await?;
            let size = usize::from_str_radix(std::str::from_utf8(&line).ok()?, 16).ok()?;
            take(stream, bytes, size + 2).await?;
            if size == 0 {
                return Some(());
            }
        }
    }
    let length = field("content-length").map_or(Some(0), |length| length.trim().parse().ok())?;
    take(stream, bytes, length).await.map(|_| ())
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
