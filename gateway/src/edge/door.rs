//! Takes connections of clients in, or not, and hands them to the proxy under watch.

use std::any::Any;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp};
use pingora::http::ResponseHeader;
use pingora::listeners::PreTlsProcess;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::{H2Options, default_h2_options};
use pingora::protocols::l4::stream::Stream as Socket;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{GetProxyDigest, GetSocketDigest, Stream};
use pingora::server::ShutdownWatch;
use pingora::{Error, ErrorType};
use tokio::sync::watch;

use super::admission::Admission;
use super::head::Largest;
use super::holdings::Held;
use super::sent::{Answer, Sent};
use super::upload::{Upload, is_silent};
use super::watched::{Progress, Terms, Watched};
use crate::config;
use crate::framing;
use crate::metrics::{Metrics, Refused};
use crate::refusal::Refusal;

/// The way in to an application.
pub struct Door<A> {
    requests: Arc<Requests<A>>,
    admission: Arc<Admission>,
    terms: Terms,
    metrics: Arc<Metrics>,
}

/// Counts connections that begin with TLS, before it costs anything.
pub struct BeforeTls(pub Arc<Admission>);

/// What an application gets of each connection: one request after the other, or many at once.
struct Requests<A> {
    app: Arc<A>,
    keep_alive: u64,
    options: HttpServerOptions,
    http2: H2Options,
    metrics: Arc<Metrics>,
}

/// What goes with a connection as long as anything knows of it.
struct Connection {
    progress: Arc<Progress>,
    sent: Arc<Sent>,
    _held: Held,
}

impl<A> Door<A> {
    /// A way in to this application; a client may take nothing of what is written for so long.
    #[must_use]
    pub fn new(
        app: A,
        settings: &config::Edge,
        stall: Duration,
        admission: Arc<Admission>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let mut options = HttpServerOptions::default();
        options.h2_idle_timeout = Some(Duration::from_secs(settings.keep_alive));
        let (app, keep_alive) = (Arc::new(app), settings.keep_alive);
        let requests = Requests { app, keep_alive, options, http2: http2(settings), metrics: metrics.clone() };
        let terms = Terms {
            head_within: settings.head_within,
            largest: settings.largest(),
            resets: settings.http2_resets,
            stall,
        };
        Self { requests: Arc::new(requests), admission, terms, metrics }
    }
}

/// Says that a write of an answer over HTTP/1.1 broke off, so that nothing more goes out on its connection.
pub fn answer_is_torn(session: &ServerSession) {
    if let Some(connection) = connection_of(session) {
        connection.progress.tear();
    }
}

/// Says that the head of a request was read, so that what follows on its connection is no head.
///
/// # Errors
/// When the head has more than is taken.
pub fn head_is_read(session: &ServerSession, largest: Largest) -> Result<(), Refusal> {
    let headers = &session.req_header().headers;
    // Of heads that came behind the body before them not all was watched.
    let bytes = if session.is_http2() { 0 } else { session.to_h1_raw().len() };
    if let Some(connection) = connection_of(session) {
        let body = framing::length(headers).unwrap_or(0);
        connection.progress.head_is_read(body.saturating_add(bytes as u64));
    }
    if bytes > largest.bytes || headers.len() > largest.fields {
        return Err(Refusal::HeadTooLarge(largest));
    }
    Ok(())
}

/// Follows how much of an answer on a connection of HTTP/2 has left this process; none if the connection has ended.
#[must_use]
pub fn follow(session: &ServerSession, stream: u32) -> Option<Answer> {
    connection_of(session)?.sent.follow(stream)
}

fn http2(settings: &config::Edge) -> H2Options {
    let mut options = default_h2_options();
    options
        .max_concurrent_streams(settings.http2_streams)
        .initial_window_size(settings.http2_stream_window)
        .initial_connection_window_size(settings.http2_connection_window)
        .max_header_list_size(settings.max_head)
        // A client may reset at once what it may have open at once.
        .max_pending_accept_reset_streams(settings.http2_streams as usize)
        .max_local_error_reset_streams(Some(settings.http2_resets));
    options
}

/// What goes with a connection that is let in.
fn take(admission: &Admission, peer: Option<&pingora::protocols::SocketDigest>) -> Option<ProxyDigest> {
    let peer = peer.and_then(|peer| peer.peer_addr()?.as_inet()).map(std::net::SocketAddr::ip);
    let connection =
        Connection { progress: Arc::default(), sent: Arc::default(), _held: admission.connection(peer).ok()? };
    // The framework's place for things that go with a connection wants an answer beside them.
    let unused = ResponseHeader::build_no_case(200, None).ok()?;
    Some(ProxyDigest::new(Box::new(unused), Some(Box::new(connection))))
}

fn connection_of(session: &ServerSession) -> Option<&Connection> {
    connection(session.digest()?.proxy_digest.as_ref()?)
}

fn connection(digest: &ProxyDigest) -> Option<&Connection> {
    let data: &(dyn Any + Send + Sync) = digest.user_data.as_deref()?;
    data.downcast_ref()
}

#[async_trait]
impl PreTlsProcess for BeforeTls {
    async fn process(&self, socket: &mut Socket) -> pingora::Result<()> {
        let Some(digest) = take(&self.0, socket.get_socket_digest().as_deref()) else {
            return Error::e_explain(ErrorType::AcceptError, "no room for the connection");
        };
        socket.set_proxy_digest(digest);
        Ok(())
    }
}

#[async_trait]
impl<A: HttpServerApp + Send + Sync + 'static> ServerApp for Door<A> {
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let digest = match stream.get_proxy_digest() {
            Some(digest) => digest,
            None => Arc::new(take(&self.admission, stream.get_socket_digest().as_deref())?),
        };
        let Connection { progress, sent, .. } = connection(&digest)?;
        let (progress, sent) = (progress.clone(), sent.clone());
        // Tells this connection alone to end, or it with all others.
        let leave = watch::Sender::new(*shutdown.borrow());
        let watched = Watched::new(stream, self.terms, self.metrics.clone(), digest, progress, sent, leave.clone());
        let left = leave.subscribe();
        let mut shutdown = shutdown.clone();
        let told = async {
            // An error means that nobody is left to tell anything.
            let _ = shutdown.wait_for(|shutdown| *shutdown).await;
            leave.send_replace(true);
            pending().await
        };
        tokio::select! {
            again = self.requests.process_new(Box::new(watched), &left) => again,
            again = told => again,
        }
    }

    async fn cleanup(&self) {
        self.requests.cleanup().await;
    }
}

#[async_trait]
impl<A: HttpServerApp + Send + Sync + 'static> HttpServerApp for Requests<A> {
    async fn process_new_http(
        self: &Arc<Self>,
        mut session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        if let Some(connection) = connection_of(&session)
            && !session.is_http2()
        {
            connection.progress.expect_head();
        }
        if session.get_keepalive().is_some() {
            session.set_keepalive(Some(self.keep_alive));
        }
        if session.is_http2() && !session.is_body_done() {
            let (upload, told) = Upload::new();
            session.req_header_mut().extensions_mut().insert(upload);
            return tokio::select! {
                again = self.app.process_new_http(session, shutdown) => again,
                // The client gets a reset: its stream cannot be reached from here to say more.
                () = is_silent(told) => {
                    self.metrics.edge.refused(Refused::SilentBody).inc();
                    None
                }
            };
        }
        self.app.process_new_http(session, shutdown).await
    }

    fn h2_options(&self) -> Option<H2Options> {
        Some(self.http2.clone())
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.options)
    }

    async fn http_cleanup(&self) {
        self.app.http_cleanup().await;
    }
}
