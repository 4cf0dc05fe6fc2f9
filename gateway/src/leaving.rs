//! Lets clients finish what they began when the program stops.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use pingora::apps::{HttpServerApp, ReusedHttpStream, ServerApp};
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use pingora::server::ShutdownWatch;

use crate::lifecycle::Lifecycle;

/// An application whose connections count as open until they end.
pub struct Counted<A> {
    app: Arc<A>,
    lifecycle: Arc<Lifecycle>,
}

/// An application whose idle connections outlive the order to stop by some time.
///
/// The framework closes them at once, and with them requests that are on their way. Here a request that still comes is
/// answered, with `Connection: close`; the framework sees to that.
pub struct Patient<A> {
    app: Arc<A>,
    lifecycle: Arc<Lifecycle>,
}

/// Whether the head of a request has come on a connection; it travels with the session to the request.
#[derive(Clone, Default)]
pub struct Asked(Arc<AtomicBool>);

impl Asked {
    /// The head of a request has come.
    pub fn note(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn is_noted(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl<A> Counted<A> {
    /// Counts the connections of this application.
    pub fn new(app: A, lifecycle: Arc<Lifecycle>) -> Self {
        Self { app: Arc::new(app), lifecycle }
    }
}

impl<A> Patient<A> {
    /// Is patient with the clients of this application.
    pub fn new(app: A, lifecycle: Arc<Lifecycle>) -> Self {
        Self { app: Arc::new(app), lifecycle }
    }
}

#[async_trait]
impl<A: ServerApp + Send + Sync + 'static> ServerApp for Counted<A> {
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let _open = self.lifecycle.open();
        self.app.process_new(stream, shutdown).await
    }
}

#[async_trait]
impl<A: HttpServerApp + Send + Sync + 'static> HttpServerApp for Patient<A> {
    async fn process_new_http(
        self: &Arc<Self>,
        mut session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        if session.is_http2() {
            // The framework tells the client not to ask any more, and answers what was asked.
            return self.app.process_new_http(session, shutdown).await;
        }
        let asked = Asked::default();
        session.set_connection_user_context(Some(Box::new(asked.clone())));
        let mut stop = shutdown.clone();
        let idled_out = async {
            // An error means that nobody is left to tell us to stop.
            let _ = stop.wait_for(|stop| *stop).await;
            tokio::time::sleep(self.lifecycle.linger()).await;
            if asked.is_noted() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            // What has come is read before the connection counts as idle.
            biased;
            next = self.app.process_new_http(session, shutdown) => next,
            () = idled_out => None,
        }
    }
}
