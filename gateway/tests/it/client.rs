//! Clients of the gateway under test: raw sockets where bytes matter, an ordinary client elsewhere.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::platform::{DOMAIN, Platform};

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Its status.
    pub(crate) status: u16,
    /// Its head, lower case.
    pub(crate) head: String,
    /// Its body, without chunked framing.
    pub(crate) body: Vec<u8>,
    /// Whether a chunked body ended as it should.
    pub(crate) complete: bool,
}

impl Answer {
    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// A field of the head.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

/// A connection over plain HTTP/1.1.
pub(crate) struct Raw {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Raw {
    /// Connects to the gateway.
    pub(crate) async fn connect(platform: &Platform) -> Self {
        Self::at(platform.http).await
    }

    /// Connects to a gateway at this port.
    pub(crate) async fn at(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        Self { stream, buffer: Vec::new() }
    }

    /// Connects from another address of the loopback.
    pub(crate) async fn connect_from(platform: &Platform, address: &str) -> Self {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(format!("{address}:0").parse().unwrap()).unwrap();
        let stream = socket.connect(([127, 0, 0, 1], platform.http).into()).await.unwrap();
        Self { stream, buffer: Vec::new() }
    }

    /// Connects with room for so many bytes of what comes. With less than a segment of the loopback, 64 KiB, it comes
    /// slowly: the sender waits for a window of that size.
    pub(crate) async fn connect_narrow(platform: &Platform, room: u32) -> Self {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(room).unwrap();
        let stream = socket.connect(([127, 0, 0, 1], platform.http).into()).await.unwrap();
        Self { stream, buffer: Vec::new() }
    }

    /// Sends these bytes, or finds that the gateway does not listen any more.
    pub(crate) async fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).await.is_ok()
    }

    /// Whether something of an answer has come.
    pub(crate) fn has_answer(&mut self) -> bool {
        let _ = self.stream.try_read_buf(&mut self.buffer);
        !self.buffer.is_empty()
    }

    /// Sends these bytes.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Reads until the bytes read so far contain this text.
    pub(crate) async fn read_until(&mut self, text: &str) {
        while !self.buffer.windows(text.len()).any(|window| window == text.as_bytes()) {
            assert_ne!(self.read_some().await, 0, "closed before {text:?}: {}", String::from_utf8_lossy(&self.buffer));
        }
    }

    /// Reads one whole answer.
    pub(crate) async fn answer(&mut self) -> Answer {
        while position(&self.buffer, b"\r\n\r\n").is_none() {
            assert_ne!(self.read_some().await, 0, "closed before an answer");
        }
        let end = position(&self.buffer, b"\r\n\r\n").unwrap() + 4;
        let head = String::from_utf8(self.buffer.drain(..end).collect()).unwrap().to_ascii_lowercase();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        if status == 100 {
            return Answer { status, head, body: vec![], complete: true };
        }
        let mut answer = Answer { status, head, body: vec![], complete: false };
        match answer.field("content-length").map(|length| length.parse::<usize>().unwrap()) {
            Some(length) => {
                while self.buffer.len() < length {
                    assert_ne!(self.read_some().await, 0, "closed within a body");
                }
                answer.body = self.buffer.drain(..length).collect();
                answer.complete = true;
            }
            None => (answer.body, answer.complete) = self.chunks().await,
        }
        answer
    }

    /// Whether the gateway closes the connection now.
    pub(crate) async fn closes(&mut self) -> bool {
        self.buffer.is_empty() && tokio::time::timeout(Duration::from_secs(5), self.read_some()).await.unwrap() == 0
    }

    async fn chunks(&mut self) -> (Vec<u8>, bool) {
        let mut body = Vec::new();
        loop {
            let Some(end) = position(&self.buffer, b"\r\n") else {
                if self.read_some().await == 0 {
                    return (body, false);
                }
                continue;
            };
            let size = usize::from_str_radix(std::str::from_utf8(&self.buffer[..end]).unwrap(), 16).unwrap();
            while self.buffer.len() < end + 2 + size + 2 {
                if self.read_some().await == 0 {
                    return (body, false);
                }
            }
            body.extend_from_slice(&self.buffer[end + 2..end + 2 + size]);
            self.buffer.drain(..end + 2 + size + 2);
            if size == 0 {
                return (body, true);
            }
        }
    }

    async fn read_some(&mut self) -> usize {
        self.stream.read_buf(&mut self.buffer).await.unwrap_or(0)
    }
}

fn position(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

/// The bytes of a request with the platform's key.
pub(crate) fn request(platform: &Platform, method: &str, label: &str, path: &str, body: &str) -> Vec<u8> {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: {label}.{DOMAIN}\r\nAuthorization: Bearer {}\r\nContent-Length: {}\r\n\r\n{body}",
        platform.key,
        body.len()
    )
    .into_bytes()
}

/// Sends a request on a connection of its own and reads the answer.
pub(crate) async fn ask(platform: &Platform, method: &str, label: &str, path: &str, body: &str) -> Answer {
    let mut raw = Raw::connect(platform).await;
    raw.send(&request(platform, method, label, path, body)).await;
    raw.answer().await
}

/// A chat request.
pub(crate) fn chat(stream: bool) -> String {
    format!(r#"{{"model":"org/model","messages":[{{"role":"user","content":"hello there"}}],"stream":{stream}}}"#)
}

/// One content chunk as an engine sends it, a line and an empty one.
pub(crate) fn content(text: &str) -> String {
    format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n")
}
