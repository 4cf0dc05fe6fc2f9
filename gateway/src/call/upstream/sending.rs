//! Sends a request to an instance and listens meanwhile, because it may answer before it has read all of it.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use pingora::protocols::Stream;
use pingora::protocols::http::v1::client::http_req_header_to_wire;
use pingora::protocols::l4::stream::Stream as Socket;
use pingora::{Error, ErrorType, OrErr};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::instance::request::Outgoing;

/// How long an instance may take no byte of a request.
const STALL: Duration = Duration::from_secs(30);
/// As far as it can be seen here whether a head is that of an answer proper.
const STATUS: usize = b"HTTP/1.1 2".len();
/// Bytes before the answer proper that are looked through for it.
const MOST_AHEAD: usize = 64 << 10;

/// How far a request came.
pub(super) enum Sent {
    /// All of it was written.
    Whole,
    /// The instance began its answer, or broke off, before all was written.
    Overtaken,
    /// Writing failed; what the instance said before is still to be read.
    Broken(Box<Error>),
}

/// Sends a request; what the instance has said by then is read from the connection next.
pub(super) async fn send(stream: Stream, request: &Outgoing) -> (Stream, Sent) {
    let (mut reading, mut writing) = tokio::io::split(stream);
    let mut said = BytesMut::new();
    let sent = tokio::select! {
        biased;
        written = write(&mut writing, request) => written.map_or_else(Sent::Broken, |()| Sent::Whole),
        () = answers(&mut reading, &mut said) => Sent::Overtaken,
    };
    (rewind(reading.unsplit(writing), &said), sent)
}

async fn write(writing: &mut (impl AsyncWrite + Unpin), request: &Outgoing) -> pingora::Result<()> {
    let head = http_req_header_to_wire(&request.head);
    let head = head.ok_or_else(|| Error::explain(ErrorType::InvalidHTTPHeader, "a head that cannot be sent"))?;
    for mut part in [&head[..], &request.body] {
        while !part.is_empty() {
            let taken = in_time(writing.write(part)).await?;
            part = &part[taken..];
        }
    }
    in_time(writing.flush()).await
}

/// One step of writing, within the time that an instance may take nothing.
async fn in_time<T>(step: impl Future<Output = io::Result<T>>) -> pingora::Result<T> {
    match timeout(STALL, step).await {
        Ok(done) => done.or_err(ErrorType::WriteError, "writing a request"),
        Err(_) => Error::e_explain(ErrorType::WriteTimedout, "writing a request"),
    }
}

/// Ends once the instance has begun its answer or said its last word; no byte of it is lost if this is dropped before.
async fn answers(reading: &mut (impl AsyncRead + Unpin), said: &mut BytesMut) {
    while !is_answer(said) && said.len() < MOST_AHEAD {
        if !matches!(reading.read_buf(said).await, Ok(1..)) {
            return;
        }
    }
}

/// Whether there is more than heads that only announce one.
fn is_answer(mut said: &[u8]) -> bool {
    while said.len() >= STATUS && said[STATUS - 1] == b'1' {
        let Some(end) = said.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { return false };
        said = &said[end + 4..];
    }
    said.len() >= STATUS
}

/// Puts bytes back in front of what is read next.
fn rewind(stream: Stream, said: &[u8]) -> Stream {
    if said.is_empty() {
        return stream;
    }
    let mut socket = stream.into_any().downcast::<Socket>().expect("connections to instances are plain");
    socket.rewind(said);
    socket
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_that_only_announce_an_answer_are_none() {
        let announced = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
        let whole = format!("{announced}HTTP/1.1 429 Too Many Requests\r\n");
        for length in 0..whole.len() {
            let expected = length >= announced.len() + STATUS;
            assert_eq!(is_answer(&whole.as_bytes()[..length]), expected, "{length} bytes");
        }
        assert!(is_answer(b"what is no HTTP at all"));
    }
}
