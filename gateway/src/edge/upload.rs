//! Ends requests over HTTP/2 whose clients fall silent while a service waits for their bodies.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use pingora::protocols::SocketDigest;
use pingora::protocols::http::ServerSession;
use tokio::sync::watch;
use tokio::time::timeout;

/// A body on its way to a service, as the proxy tells of it; it travels with the head of its request.
///
/// The framework times the bodies of HTTP/1.1 itself.
#[derive(Clone)]
pub struct Upload(watch::Sender<Option<Awaited>>);

/// What is told of an upload; each word of it means that the body has moved.
pub(super) type Told = watch::Receiver<Option<Awaited>>;

/// A body of which more has to come.
#[derive(Clone)]
pub(super) struct Awaited {
    silence: Duration,
    service: Option<Arc<SocketDigest>>,
}

impl Upload {
    /// A body that nobody waits for yet.
    pub(super) fn new() -> (Self, Told) {
        let (sender, told) = watch::channel(None);
        (Self(sender), told)
    }

    /// The body of this request, if it came over HTTP/2.
    #[must_use]
    pub fn of(session: &ServerSession) -> Option<&Self> {
        session.req_header().extensions.get()
    }

    /// From now on the client may be silent only so long at a time, unless this service takes nothing.
    pub fn is_awaited(&self, silence: Duration, service: Option<Arc<SocketDigest>>) {
        self.0.send_replace(Some(Awaited { silence, service }));
    }

    /// A part of it has come.
    pub fn has_moved(&self) {
        self.0.send_modify(|_| {});
    }

    /// Nothing of it is waited for any more.
    pub fn is_over(&self) {
        self.0.send_replace(None);
    }
}

impl Awaited {
    /// Whether the service has taken all that there was for it, so that it is the client who is waited for.
    ///
    /// While the connection to the service is closed already, at worst this asks about another one.
    fn is_taken(&self) -> bool {
        let state = self.service.as_ref().and_then(|service| service.tcp_info());
        state.is_none_or(|state| state.tcpi_unacked == 0 && state.tcpi_notsent_bytes == 0)
    }
}

/// Ends once the client has been silent for too long.
pub(super) async fn is_silent(mut told: Told) {
    loop {
        let awaited = told.borrow_and_update().clone();
        let word = match &awaited {
            Some(awaited) => timeout(awaited.silence, told.changed()).await.ok(),
            None => Some(told.changed().await),
        };
        match word {
            Some(Ok(())) => {}
            // Nobody tells anything any more: the request is over.
            Some(Err(_)) => pending().await,
            None if awaited.is_some_and(|awaited| awaited.is_taken()) => return,
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    const SILENCE: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn only_silence_while_more_is_awaited_ends_a_request() {
        let (upload, told) = Upload::new();
        let mut silent = Box::pin(is_silent(told));
        let mut ends_within = async |time| timeout(time, &mut silent).await.is_ok();
        assert!(!ends_within(2 * SILENCE).await, "nobody waits yet");
        upload.is_awaited(SILENCE, None);
        for _ in 0..3 {
            assert!(!ends_within(SILENCE * 9 / 10).await);
            upload.has_moved();
        }
        upload.is_over();
        assert!(!ends_within(2 * SILENCE).await, "nobody waits any more");
        upload.is_awaited(SILENCE, None);
        assert!(!ends_within(SILENCE * 9 / 10).await);
        assert!(ends_within(SILENCE / 5).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_is_over_is_not_ended() {
        let (upload, told) = Upload::new();
        upload.is_awaited(SILENCE, None);
        drop(upload);
        let mut silent = Box::pin(is_silent(told));
        tokio::time::sleep(2 * SILENCE).await;
        assert!(silent.as_mut().now_or_never().is_none());
    }
}
