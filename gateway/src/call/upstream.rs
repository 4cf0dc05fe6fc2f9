//! The instances' side of a call, as the attempt loop sees it.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use pingora::connectors::l4::BindTo;
use pingora::connectors::{ConnectorOptions, TransportConnector};
use pingora::protocols::Stream;
use pingora::protocols::http::v1::client::HttpSession;
use pingora::upstreams::peer::{HttpPeer, Peer};
use pingora::{Error, ErrorType};
use protocol::directory::Instance;
use tracing::debug;

use super::socket;
use crate::instance::request::Outgoing;
use crate::instance::verdict::Failure;

/// How long a connection waits for its next call: less than the 5 s after which an SDK's server closes it.
const KEEP: Duration = Duration::from_secs(4);
/// How soon after sending begins a kept connection breaks that had been closed before: a round trip, and some more.
const STALE: Duration = Duration::from_secs(1);
/// How long an instance may take no byte of a request.
const STALL: Duration = Duration::from_secs(30);
/// Connections kept for next calls, over all instances.
const KEPT: usize = 4096;

/// Where instances can be reached.
pub trait Instances: Send + Sync {
    /// An answer that has begun.
    type Answer: Answer;

    /// Sends a request and waits for the head of its answer; dropping the future closes the connection.
    fn send(
        &self,
        instance: &Instance,
        request: &Outgoing,
    ) -> impl Future<Output = Result<Self::Answer, Failure>> + Send;
}

/// An answer that has begun; dropping it closes its connection.
pub trait Answer: Send {
    /// Its status.
    fn status(&self) -> StatusCode;
    /// Its fields.
    fn fields(&self) -> &HeaderMap;
    /// The next piece of its body, none at its end; may be dropped while pending and called again.
    fn piece(&mut self) -> impl Future<Output = Result<Option<Bytes>, Failure>> + Send;
    /// Keeps the connection of an answer that was read to its end.
    fn keep(self) -> impl Future<Output = ()> + Send;
}

/// Connections to instances over plain HTTP/1.1.
pub struct Network {
    transport: Arc<TransportConnector>,
    source: Option<IpAddr>,
    connect: Duration,
}

/// An answer on such a connection.
pub struct NetworkAnswer {
    session: HttpSession,
    status: StatusCode,
    peer: HttpPeer,
    transport: Arc<TransportConnector>,
}

/// An exchange without an answer.
struct Broken {
    error: Box<Error>,
    /// Whether it looks like a connection that the instance had closed before it was used again.
    stale: bool,
}

impl Network {
    /// Connections that leave from `source`, made within `connect`.
    #[must_use]
    pub fn new(source: Option<IpAddr>, connect: Duration) -> Self {
        let transport = Arc::new(TransportConnector::new(Some(ConnectorOptions::new(KEPT))));
        Self { transport, source, connect }
    }

    async fn peer(&self, instance: &Instance) -> Result<HttpPeer, Failure> {
        let address = self.within(resolve(&instance.host, instance.port)).await?;
        let mut peer = HttpPeer::new(address, false, String::new());
        peer.group_key = instance.id.0.as_u64_pair().1;
        if let Some(source) = self.source.filter(|source| source.is_ipv4() == address.is_ipv4()) {
            let mut bind = BindTo::default();
            bind.addr = Some(SocketAddr::new(source, 0));
            peer.options.bind_to = Some(bind);
        }
        Ok(peer)
    }

    async fn connect(&self, peer: &HttpPeer) -> Result<Stream, Failure> {
        self.within(async {
            self.transport.new_stream(peer).await.map_err(|error| {
                debug!(%error, "cannot connect to an instance");
                Failure::Connect
            })
        })
        .await
    }

    async fn within<T>(&self, step: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        tokio::time::timeout(self.connect, step).await.unwrap_or(Err(Failure::Connect))
    }

    async fn exchange(&self, stream: Stream, peer: &HttpPeer, request: &Outgoing) -> Result<NetworkAnswer, Broken> {
        let mut session = HttpSession::new_with_options(stream, peer);
        session.write_timeout = Some(STALL);
        let (begun, before) = (Instant::now(), segments_received(&session));
        match converse(&mut session, request).await {
            Ok(status) => Ok(NetworkAnswer { session, status, peer: peer.clone(), transport: self.transport.clone() }),
            Err(error) => {
                let untouched = before.is_some() && segments_received(&session) == before;
                let stale = was_closed(&error) && untouched && begun.elapsed() < STALE;
                Err(Broken { error, stale })
            }
        }
    }
}

impl Instances for Network {
    type Answer = NetworkAnswer;

    async fn send(&self, instance: &Instance, request: &Outgoing) -> Result<NetworkAnswer, Failure> {
        let peer = self.peer(instance).await?;
        if let Some(kept) = self.transport.reused_stream(&peer).await {
            match self.exchange(kept, &peer, request).await {
                // That says nothing about the instance; one that breaks otherwise may have been at work, and failed.
                Err(Broken { error, stale: true }) => debug!(%error, "a kept connection was closed"),
                other => return other.map_err(|broken| failure(&broken.error)),
            }
        }
        let fresh = self.connect(&peer).await?;
        self.exchange(fresh, &peer, request).await.map_err(|broken| failure(&broken.error))
    }
}

impl Answer for NetworkAnswer {
    fn status(&self) -> StatusCode {
        self.status
    }

    fn fields(&self) -> &HeaderMap {
        &self.session.resp_header().expect("an answer begins with its head").headers
    }

    async fn piece(&mut self) -> Result<Option<Bytes>, Failure> {
        self.session.read_body_bytes().await.map_err(|error| failure(&error))
    }

    async fn keep(mut self) {
        self.session.respect_keepalive();
        if let Some(stream) = self.session.reuse().await {
            self.transport.release_stream(stream, self.peer.reuse_hash(), Some(KEEP));
        }
    }
}

/// Sends a request and waits for the head of its answer.
async fn converse(session: &mut HttpSession, request: &Outgoing) -> pingora::Result<StatusCode> {
    session.write_request_header(request.head.clone()).await?;
    session.write_body(&request.body).await?;
    session.finish_body().await?;
    final_status(session).await
}

/// Waits for the head of the answer proper.
async fn final_status(session: &mut HttpSession) -> pingora::Result<StatusCode> {
    loop {
        session.read_response().await?;
        match session.get_status() {
            Some(StatusCode::SWITCHING_PROTOCOLS) | None => {
                return Error::e_explain(ErrorType::InvalidHTTPHeader, "an answer nobody asked for");
            }
            Some(status) if status.is_informational() => {}
            Some(status) => return Ok(status),
        }
    }
}

async fn resolve(host: &str, port: u16) -> Result<SocketAddr, Failure> {
    if let Ok(address) = host.parse() {
        return Ok(SocketAddr::new(address, port));
    }
    let mut found = tokio::net::lookup_host((host, port)).await.map_err(|_| Failure::Connect)?;
    found.next().ok_or(Failure::Connect)
}

/// How much has come in on a connection.
fn segments_received(session: &HttpSession) -> Option<u32> {
    session.digest().socket_digest.as_deref().and_then(socket::segments_received)
}

/// Whether the other side closed the connection.
fn was_closed(error: &Error) -> bool {
    matches!(error.etype(), ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError)
}

fn failure(error: &Error) -> Failure {
    debug!(%error, "an instance failed");
    match error.etype() {
        ErrorType::ReadTimedout | ErrorType::WriteTimedout => Failure::Timeout,
        ErrorType::InvalidHTTPHeader => Failure::Garbled,
        _ => Failure::Closed,
    }
}
