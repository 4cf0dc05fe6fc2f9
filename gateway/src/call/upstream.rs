//! The instances' side of a call, as the attempt loop sees it.

mod pool;
mod sending;

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use pingora::connectors::TransportConnector;
use pingora::connectors::l4::BindTo;
use pingora::protocols::Stream;
use pingora::protocols::http::v1::client::HttpSession;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType};
use protocol::directory::Instance;
use protocol::ids::InstanceId;
use tracing::debug;

pub use self::pool::{Bounds, Pool};
use self::sending::{Sent, send};
use super::socket;
use crate::instance::request::Outgoing;
use crate::instance::verdict::Failure;
use crate::metrics::Over;

/// How long an answer may take to be read that came before its request was sent, and broke it.
const LAST_WORDS: Duration = Duration::from_secs(5);

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
    transport: TransportConnector,
    source: Option<IpAddr>,
    connect: Duration,
    pool: Arc<Pool>,
}

/// An answer on such a connection.
pub struct NetworkAnswer {
    session: HttpSession,
    status: StatusCode,
    /// Whether its request was sent whole; else nothing else can be sent on the connection.
    in_turn: bool,
    place: Place,
    pool: Arc<Pool>,
}

/// Where an instance is.
#[derive(Clone, Copy)]
struct Place {
    instance: InstanceId,
    address: SocketAddr,
}

/// An exchange without an answer.
struct Broken {
    error: Box<Error>,
    /// Whether the instance's system confirmed no byte of the request: then the instance cannot have seen it whole.
    unseen: bool,
}

impl Network {
    /// Connections that leave from `source`, made within `connect`, and wait for their next call in `pool`.
    #[must_use]
    pub fn new(source: Option<IpAddr>, connect: Duration, pool: Arc<Pool>) -> Self {
        Self { transport: TransportConnector::new(None), source, connect, pool }
    }

    async fn place(&self, instance: &Instance) -> Result<Place, Failure> {
        let address = self.within(resolve(&instance.host, instance.port)).await?;
        Ok(Place { instance: instance.id, address })
    }

    fn peer(&self, address: SocketAddr) -> HttpPeer {
        let mut peer = HttpPeer::new(address, false, String::new());
        if let Some(source) = self.source.filter(|source| source.is_ipv4() == address.is_ipv4()) {
            let mut bind = BindTo::default();
            bind.addr = Some(SocketAddr::new(source, 0));
            peer.options.bind_to = Some(bind);
        }
        peer
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

    async fn exchange(&self, stream: Stream, place: Place, request: &Outgoing) -> Result<NetworkAnswer, Broken> {
        let before = bytes_confirmed(&stream);
        let (stream, sent) = send(stream, request).await;
        let mut session = HttpSession::new_with_options(stream, &self.peer(place.address));
        let in_turn = matches!(sent, Sent::Whole);
        match answered(&mut session, sent).await {
            Ok(status) => Ok(NetworkAnswer { session, status, in_turn, place, pool: self.pool.clone() }),
            Err(error) => {
                let unseen = before.is_some() && bytes_confirmed(session.stream()) == before;
                Err(Broken { error, unseen })
            }
        }
    }
}

impl Instances for Network {
    type Answer = NetworkAnswer;

    async fn send(&self, instance: &Instance, request: &Outgoing) -> Result<NetworkAnswer, Failure> {
        let place = self.place(instance).await?;
        let mut over = Over::Opened;
        if let Some(kept) = self.pool.take(place.instance, place.address) {
            match self.exchange(kept, place, request).await {
                // That says nothing about the instance; one that breaks otherwise may have been at work, and failed.
                Err(Broken { error, unseen: true }) if was_closed(&error) => {
                    debug!(%error, "a kept connection was closed");
                    over = Over::Reopened;
                }
                other => {
                    self.pool.count(Over::Kept);
                    return other.map_err(|broken| failure(&broken.error));
                }
            }
        }
        let fresh = self.connect(&self.peer(place.address)).await?;
        self.pool.count(over);
        self.exchange(fresh, place, request).await.map_err(|broken| failure(&broken.error))
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
        if !self.in_turn {
            return;
        }
        self.session.respect_keepalive();
        if let Some(stream) = self.session.reuse().await {
            self.pool.put(self.place.instance, self.place.address, stream);
        }
    }
}

/// The status of the answer to a request that came so far.
async fn answered(session: &mut HttpSession, sent: Sent) -> pingora::Result<StatusCode> {
    let status = match sent {
        Sent::Whole => return final_status(session).await,
        Sent::Overtaken => final_status(session).await?,
        Sent::Broken(error) => match tokio::time::timeout(LAST_WORDS, final_status(session)).await {
            Ok(Ok(status)) => status,
            Ok(Err(_)) | Err(_) => return Err(error),
        },
    };
    if status.is_success() {
        // A request is sealed as one: without its end nobody can have opened it.
        return Error::e_explain(ErrorType::InvalidHTTPHeader, "a success without the request");
    }
    Ok(status)
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

/// How much of what was sent on a connection has arrived.
fn bytes_confirmed(stream: &Stream) -> Option<u64> {
    stream.get_socket_digest().as_deref().and_then(socket::bytes_confirmed)
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

#[cfg(test)]
mod tests;
