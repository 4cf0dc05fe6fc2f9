//! A client that writes and reads HTTP/2 frames by hand, over TLS.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use crate::platform::{DOMAIN, Platform};

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
const ACK: u8 = 1;
const PING: u8 = 6;
const LONGEST: Duration = Duration::from_secs(20);

/// One frame of the gateway.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

/// A connection.
pub(crate) struct Frames {
    tls: TlsStream<TcpStream>,
    /// What came before the answer to a ping.
    came: VecDeque<Frame>,
}

impl Frame {
    /// The number at a place of the payload.
    pub(crate) fn number(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }
}

/// A TLS connection to a host of the gateway that speaks this protocol.
pub(crate) async fn tls(platform: &Platform, label: &str, protocol: &str) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(platform.authority.as_bytes()).unwrap()).unwrap();
    let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![protocol.into()];
    let stream = TcpStream::connect(("127.0.0.1", platform.https)).await?;
    let name = ServerName::try_from(format!("{label}.{DOMAIN}")).unwrap();
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

impl Frames {
    /// Connects and says that it speaks HTTP/2, with these settings.
    pub(crate) async fn connect(platform: &Platform, label: &str) -> Self {
        let mut frames = Self { tls: tls(platform, label, "h2").await.unwrap(), came: VecDeque::new() };
        frames.tls.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        assert!(frames.send(SETTINGS, 0, 0, &[]).await);
        frames
    }

    /// Sends a frame, or finds the connection closed.
    pub(crate) async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        let [_, length @ ..] = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let bytes = [&length[..], &[kind, flags], &stream.to_be_bytes(), payload].concat();
        self.write(&bytes).await
    }

    /// Sends bytes that may be a part of a frame, or finds the connection closed.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> bool {
        self.tls.write_all(bytes).await.is_ok() && self.tls.flush().await.is_ok()
    }

    /// Waits until the gateway has read all that was sent, or finds the connection closed.
    pub(crate) async fn is_read(&mut self) -> bool {
        if !self.send(PING, 0, 0, &[0; 8]).await {
            return false;
        }
        loop {
            match timeout(LONGEST, self.read()).await.expect("an answer or the end of the connection") {
                None => return false,
                Some(frame) if frame.kind == PING => return true,
                Some(frame) => self.came.push_back(frame),
            }
        }
    }

    /// The next frame that is no acknowledgement, none at the end of the connection; answers pings.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        match self.came.pop_front() {
            Some(frame) => Some(frame),
            None => timeout(LONGEST, self.read()).await.expect("a frame or the end of the connection"),
        }
    }

    /// The next frame of this kind; none if the connection ends before it.
    pub(crate) async fn until(&mut self, kind: u8) -> Option<Frame> {
        loop {
            let frame = self.next().await?;
            if frame.kind == kind {
                return Some(frame);
            }
        }
    }

    async fn read(&mut self) -> Option<Frame> {
        loop {
            let mut head = [0; 9];
            self.tls.read_exact(&mut head).await.ok()?;
            let [a, b, c, kind, flags, stream @ ..] = head;
            let mut payload = vec![0; usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c)];
            self.tls.read_exact(&mut payload).await.ok()?;
            match (kind, flags & ACK) {
                (SETTINGS, ACK) => {}
                (PING, 0) => _ = self.send(PING, ACK, 0, &payload).await,
                _ => return Some(Frame { kind, stream: u32::from_be_bytes(stream), payload }),
            }
        }
    }
}

/// The fields of a request, in the plainest form of HPACK.
pub(crate) fn fields(post: bool, authority: &str, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    // By their place in the static table: method, scheme https, and the names of authority and path.
    let mut block = vec![if post { 0x83 } else { 0x82 }, 0x87];
    for (name, value) in [(1, authority), (4, path)] {
        block.push(name);
        push(&mut block, value);
    }
    for (name, value) in more {
        block.push(0);
        push(&mut block, name);
        push(&mut block, value);
    }
    block
}

fn push(block: &mut Vec<u8>, text: &str) {
    assert!(text.len() < 127, "a longer text needs another length");
    block.push(u8::try_from(text.len()).unwrap());
    block.extend_from_slice(text.as_bytes());
}
