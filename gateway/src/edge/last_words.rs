//! Answers a client whose request the proxy does not get to see, and closes the connection.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pingora::protocols::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use crate::refusal::Refusal;

/// How long a client may take to read its answer, and go on sending meanwhile.
const PATIENCE: Duration = Duration::from_secs(1);

/// An answer on its way. What the client still sends is read off: a connection that is closed with unread bytes is
/// reset, which can destroy the answer.
pub(super) struct LastWords {
    bytes: Vec<u8>,
    written: usize,
    is_shut: bool,
    until: Pin<Box<Sleep>>,
}

impl LastWords {
    /// The answer to a request of HTTP/1.1.
    pub(super) fn new(refusal: &Refusal) -> Self {
        let (status, body) = (refusal.status(), refusal.body().to_json());
        let head = format!(
            "HTTP/1.1 {} {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            status.as_u16(),
            status.canonical_reason().unwrap_or_default(),
            body.len()
        );
        let bytes = [head.into_bytes(), body.into_bytes()].concat();
        Self { bytes, written: 0, is_shut: false, until: Box::pin(tokio::time::sleep(PATIENCE)) }
    }

    /// Ends when the client has its answer, or will not get it.
    pub(super) fn poll(&mut self, stream: &mut Stream, context: &mut Context<'_>) -> Poll<()> {
        if self.until.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        // A client that is gone needs no answer.
        let _ = ready!(self.poll_say(stream, context));
        Poll::Ready(())
    }

    fn poll_say(&mut self, stream: &mut Stream, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.bytes.len() {
            let written = ready!(Pin::new(&mut *stream).poll_write(context, &self.bytes[self.written..]))?;
            if written == 0 {
                return Poll::Ready(Ok(()));
            }
            self.written += written;
        }
        if !self.is_shut {
            ready!(Pin::new(&mut *stream).poll_flush(context))?;
            ready!(Pin::new(&mut *stream).poll_shutdown(context))?;
            self.is_shut = true;
        }
        let mut ignored = [0; 4096];
        loop {
            let mut buffer = ReadBuf::new(&mut ignored);
            ready!(Pin::new(&mut *stream).poll_read(context, &mut buffer))?;
            if buffer.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}
