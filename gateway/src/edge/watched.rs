//! A client's connection as the framework sees it, with an eye on how request heads arrive and answers leave.

use std::fmt;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::tls::{SslDigest, TlsRef};
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream, TimingDigest,
    UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::time::{Instant, Sleep};

use super::head::{Head, Largest};
use super::last_words::LastWords;
use super::received::Received;
use super::sent::{Sent, Writing};
use crate::metrics::{Metrics, Refused};
use crate::refusal::Refusal;

/// What is wrong with a head that the framework does not read.
const UNREADABLE: &str = "the request is malformed, or its method is CONNECT";

/// What a connection is held to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    /// Time for a request head.
    pub(super) head_within: Duration,
    /// Its size.
    pub(super) largest: Largest,
    /// Streams a client of HTTP/2 may reset before it is asked to leave.
    pub(super) resets: usize,
    /// How long it may take nothing of what is written.
    pub(super) stall: Duration,
}

/// What the proxy tells of the requests on a connection.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Odd while the request is past its head.
    phase: AtomicU32,
    /// Bytes of all requests so far, their bodies included. Where the framework has escaped a target these are too many.
    taken: AtomicU64,
    /// Whether an answer broke off in the middle of a write.
    torn: AtomicBool,
}

/// A connection under watch.
pub(super) struct Watched {
    inner: Stream,
    terms: Terms,
    metrics: Arc<Metrics>,
    digest: Arc<ProxyDigest>,
    protocol: Protocol,
    /// Armed while a head is arriving.
    late: Option<Pin<Box<Sleep>>>,
    /// Armed while the client takes nothing of what is written.
    stalled: Option<Pin<Box<Sleep>>>,
    last_words: Option<LastWords>,
}

enum Protocol {
    Http1 {
        progress: Arc<Progress>,
        /// At which progress `head` began.
        at: u32,
        head: Head,
        /// Bytes so far.
        received: u64,
    },
    Http2 {
        received: Received,
        writing: Writing,
        /// Asks the client to leave.
        leave: watch::Sender<bool>,
    },
}

impl Progress {
    /// The next bytes are a request head.
    pub(super) fn expect_head(&self) {
        self.phase.fetch_add(self.phase.load(Ordering::Relaxed) & 1, Ordering::Relaxed);
    }

    /// The head of a request was read that has so many bytes in all.
    pub(super) fn head_is_read(&self, request: u64) {
        self.taken.fetch_add(request, Ordering::Relaxed);
        self.phase.fetch_or(1, Ordering::Relaxed);
    }

    /// An answer broke off in the middle of a write: more would be read as a part of it.
    pub(super) fn tear(&self) {
        self.torn.store(true, Ordering::Relaxed);
    }

    fn current(&self) -> u32 {
        self.phase.load(Ordering::Relaxed)
    }

    /// How much of what was received belongs to the next request.
    fn ahead(&self, received: u64) -> u64 {
        received.saturating_sub(self.taken.load(Ordering::Relaxed))
    }
}

impl Watched {
    /// Watches a connection whose first request head has to arrive from now on; of HTTP/2, `sent` hears what has left
    /// and `leave` is set when the client has to.
    pub(super) fn new(
        inner: Stream,
        terms: Terms,
        metrics: Arc<Metrics>,
        digest: Arc<ProxyDigest>,
        progress: Arc<Progress>,
        sent: Arc<Sent>,
        leave: watch::Sender<bool>,
    ) -> Self {
        let protocol = match inner.selected_alpn_proto() {
            Some(ALPN::H2) => Protocol::Http2 { received: Received::new(), writing: Writing::new(sent), leave },
            _ => Protocol::Http1 { at: progress.current(), progress, head: Head::default(), received: 0 },
        };
        let late = Some(Box::pin(tokio::time::sleep(terms.head_within)));
        Self { inner, terms, metrics, digest, protocol, late, stalled: None, last_words: None }
    }

    /// Starts over where the proxy has come to another request.
    fn begin(&mut self) {
        let Protocol::Http1 { progress, at, head, received } = &mut self.protocol else { return };
        let current = progress.current();
        if current == *at {
            return;
        }
        self.late = None;
        // A head may have begun behind the request before it: the framework keeps those bytes and reads on from there.
        let ahead = if is_past_head(current) { 0 } else { progress.ahead(*received) };
        (*at, *head) = (current, Head::default());
        if ahead > 0 {
            *head = Head::begun(usize::try_from(ahead).unwrap_or(usize::MAX));
            self.set_timer();
        }
    }

    fn is_in_head(&self) -> bool {
        match &self.protocol {
            Protocol::Http1 { at, .. } => !is_past_head(*at),
            Protocol::Http2 { received, .. } => received.in_head(),
        }
    }

    /// Looks at what was read; an error when the client is not to be listened to any longer.
    fn look(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        if let Protocol::Http1 { received, .. } = &mut self.protocol {
            *received += bytes.len() as u64;
        }
        match &mut self.protocol {
            Protocol::Http1 { at, .. } if is_past_head(*at) => Ok(()),
            Protocol::Http1 { head, .. } => {
                if head.read(bytes, self.terms.largest) {
                    Ok(())
                } else {
                    Err(Refused::LargeHead)
                }
            }
            Protocol::Http2 { received, leave, .. } => {
                received.read(bytes);
                if received.resets() >= self.terms.resets && !leave.send_replace(true) {
                    self.metrics.edge.refused(Refused::Resets).inc();
                }
                // It was asked to leave and goes on.
                if received.resets() > self.terms.resets.saturating_mul(2) { Err(Refused::Resets) } else { Ok(()) }
            }
        }
    }

    /// Ends the connection, with a word of why where there is a way to say it.
    fn refuse(&mut self, reason: Refused, refusal: &Refusal) {
        self.metrics.edge.refused(reason).inc();
        if let Protocol::Http1 { head, .. } = &self.protocol
            && head.has_begun()
        {
            self.last_words = Some(LastWords::new(refusal));
        }
    }

    /// Whether the head that is arriving has taken too long.
    fn is_late(&mut self, context: &mut Context<'_>) -> bool {
        self.late.as_mut().is_some_and(|late| late.as_mut().poll(context).is_ready())
    }

    /// Whether what is written now is the framework's own answer to a head that it does not read. It has no body; ours
    /// goes out in its place when the connection is shut down.
    fn is_replaced(&mut self) -> bool {
        self.begin();
        if self.is_in_head() && matches!(self.protocol, Protocol::Http1 { .. }) {
            let words = || LastWords::new(&Refusal::BadRequest(UNREADABLE.into()));
            self.last_words.get_or_insert_with(words);
        }
        self.last_words.is_some()
    }

    /// Writes to the client, unless its last answer is torn; an error once it has taken nothing for too long.
    fn send<T>(
        &mut self,
        context: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut Stream>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if let Protocol::Http1 { progress, .. } = &self.protocol
            && progress.torn.load(Ordering::Relaxed)
        {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let written = write(Pin::new(&mut self.inner), context);
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let stall = self.terms.stall;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(stall)));
        stalled.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }

    fn set_timer(&mut self) {
        if !self.is_in_head() {
            self.late = None;
        } else if self.late.is_none() {
            self.late = Some(Box::pin(tokio::time::sleep_until(Instant::now() + self.terms.head_within)));
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Some(last_words) = &mut this.last_words {
            ready!(last_words.poll(&mut this.inner, context));
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        this.begin();
        let before = buffer.filled().len();
        let (reason, refusal) = match Pin::new(&mut this.inner).poll_read(context, buffer)? {
            Poll::Pending if this.is_in_head() && this.is_late(context) => (Refused::SlowHead, Refusal::HeadTimeout),
            Poll::Pending => return Poll::Pending,
            Poll::Ready(()) => match this.look(&buffer.filled()[before..]) {
                Ok(()) => {
                    this.set_timer();
                    return Poll::Ready(Ok(()));
                }
                Err(reason) => (reason, Refusal::HeadTooLarge(this.terms.largest)),
            },
        };
        buffer.set_filled(before);
        this.refuse(reason, &refusal);
        if let Some(last_words) = &mut this.last_words {
            ready!(last_words.poll(&mut this.inner, context));
        }
        Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_replaced() {
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = ready!(self.send(context, |inner, context| inner.poll_write(context, bytes)))?;
        if let Protocol::Http2 { writing, .. } = &mut self.protocol {
            writing.wrote(&bytes[..written]);
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.send(context, |inner, context| inner.poll_flush(context)))?;
        if let Protocol::Http2 { writing, .. } = &mut self.protocol {
            writing.flushed();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Some(last_words) = &mut this.last_words {
            ready!(last_words.poll(&mut this.inner, context));
            return Poll::Ready(Ok(()));
        }
        this.send(context, |inner, context| inner.poll_shutdown(context))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.is_replaced() {
            return Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()));
        }
        let written = ready!(self.send(context, |inner, context| inner.poll_write_vectored(context, slices)))?;
        if let Protocol::Http2 { writing, .. } = &mut self.protocol {
            let mut rest = written;
            for slice in slices {
                let taken = rest.min(slice.len());
                writing.wrote(&slice[..taken]);
                rest -= taken;
            }
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[async_trait]
impl Shutdown for Watched {
    async fn shutdown(&mut self) {
        // What is still to be written may wait for a client that never reads.
        let _ = tokio::time::timeout(self.terms.stall, Shutdown::shutdown(&mut *self.inner)).await;
    }
}

impl fmt::Debug for Watched {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Watched").finish_non_exhaustive()
    }
}

impl UniqueID for Watched {
    fn id(&self) -> UniqueIDType {
        self.inner.id()
    }
}

impl Ssl for Watched {
    fn get_ssl(&self) -> Option<&TlsRef> {
        self.inner.get_ssl()
    }

    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.inner.get_ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.inner.selected_alpn_proto()
    }
}

impl GetTimingDigest for Watched {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.inner.get_timing_digest()
    }

    fn get_read_pending_time(&self) -> Duration {
        self.inner.get_read_pending_time()
    }

    fn get_write_pending_time(&self) -> Duration {
        self.inner.get_write_pending_time()
    }
}

impl GetProxyDigest for Watched {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        Some(Arc::clone(&self.digest))
    }
}

impl GetSocketDigest for Watched {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.inner.get_socket_digest()
    }

    fn set_socket_digest(&mut self, digest: SocketDigest) {
        self.inner.set_socket_digest(digest);
    }
}

#[async_trait]
impl Peek for Watched {
    async fn try_peek(&mut self, bytes: &mut [u8]) -> io::Result<bool> {
        self.inner.try_peek(bytes).await
    }
}

fn is_past_head(progress: u32) -> bool {
    progress & 1 == 1
}
