//! Passes requests on to our own services, with nothing in their heads that only the edge may say.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, FORWARDED, HOST, HeaderName, RETRY_AFTER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, Method, StatusCode, Version};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::TcpKeepalive;
use pingora::protocols::http::ServerSession;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType};
use protocol::headers;

use crate::host::merge_slashes;
use crate::refusal::Refusal;

/// Client headers of our own family that the services behind authenticate themselves.
const CREDENTIALS: [&str; 3] = [headers::HOTKEY, headers::SIGNATURE, headers::NONCE];

/// Headers about the client that only the edge may set.
const FORWARDED_PREFIX: &str = "x-forwarded-";
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Headers of an answer that end at the next hop; framing and upgrades are the framework's.
const HOP_BY_HOP: [HeaderName; 3] = [
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("proxy-authenticate"),
];

/// The page of metrics that a header hides upstream; here only the internal listener has it.
const METRICS_PATH: &str = "/_metrics";

/// Time to connect to a service of ours.
const CONNECT: Duration = Duration::from_secs(5);
/// Time a service of ours may stay silent within an answer.
const SILENCE: Duration = Duration::from_secs(600);

/// How a dead peer is found on a connection over which nobody says anything.
pub const DEAD_PEERS: TcpKeepalive = TcpKeepalive {
    idle: Duration::from_secs(60),
    interval: Duration::from_secs(15),
    count: 4,
    // The system's own.
    user_timeout: Duration::ZERO,
};

/// One of our services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// The developers' API.
    Api,
    /// The image registry.
    Registry,
    /// The miners' socket.
    Ws,
    /// The public event socket.
    Events,
}

/// Where our services are.
#[derive(Clone, Debug)]
pub struct Services {
    /// The API.
    pub api: SocketAddr,
    /// The registry, if it runs.
    pub registry: Option<SocketAddr>,
    /// The miners' socket, if it runs.
    pub ws: Option<SocketAddr>,
    /// The event socket, if it runs.
    pub events: Option<SocketAddr>,
    /// Peers whose word about the client is believed.
    pub trusted: Vec<IpAddr>,
}

/// A request on its way to a service.
#[derive(Clone, Debug)]
pub struct Forwarded {
    service: Service,
    address: SocketAddr,
    /// Who asks.
    client: Client,
    /// Whether it asks for a WebSocket, which lives on and whose ends may be silent for as long as they like.
    lives_on: bool,
}

/// Who the client is, as far as the edge can vouch for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// Its address; none when the connection has none.
    pub address: Option<IpAddr>,
    /// Whether it speaks TLS, with us or with a trusted balancer.
    pub tls: bool,
}

impl Client {
    /// Who stands behind a connection: the peer itself, or whom a trusted peer names.
    #[must_use]
    pub fn of(peer: Option<IpAddr>, tls: bool, headers: &HeaderMap, trusted: &[IpAddr]) -> Self {
        if !peer.is_some_and(|peer| trusted.contains(&peer)) {
            return Self { address: peer, tls };
        }
        let named = headers.get_all(FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok());
        let mut named: Vec<&str> = named.flat_map(|value| value.split(',')).map(str::trim).collect();
        let mut address = peer;
        // From the right: each trusted peer vouches for the one before it.
        while let Some(next) = named.pop().and_then(|text| text.parse().ok()) {
            address = Some(next);
            if !trusted.contains(&next) {
                break;
            }
        }
        let proto = headers.get(FORWARDED_PROTO).is_some_and(|proto| proto.as_bytes() == b"https");
        Self { address, tls: tls || proto }
    }
}

impl Services {
    /// The way of a request to a service.
    ///
    /// # Errors
    /// When nothing serves it, or it asks for what only the internal listener shows.
    pub fn forward(&self, service: Service, session: &ServerSession) -> Result<Forwarded, Refusal> {
        let request = session.req_header();
        let path = merge_slashes(request.uri.path());
        if path == METRICS_PATH || path.strip_prefix(METRICS_PATH).is_some_and(|rest| rest.starts_with('/')) {
            return Err(Refusal::UnknownPage);
        }
        let address = match service {
            Service::Api => Some(self.api),
            Service::Registry => self.registry,
            Service::Ws => self.ws,
            Service::Events => self.events,
        };
        let address = address.ok_or(Refusal::NoService(service.name()))?;
        let peer = session.client_addr().and_then(|peer| peer.as_inet()).map(|peer| peer.ip().to_canonical());
        let tls = session.digest().is_some_and(|digest| digest.ssl_digest.is_some());
        let client = Client::of(peer, tls, &request.headers, &self.trusted);
        Ok(Forwarded { service, address, client, lives_on: asks_for_websocket(request) })
    }
}

impl Service {
    /// Its label under the domain.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Registry => "registry",
            Self::Ws => "ws",
            Self::Events => "events",
        }
    }
}

impl Forwarded {
    /// The service.
    #[must_use]
    pub fn service(&self) -> Service {
        self.service
    }

    /// Who asks.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client
    }

    /// Whether it asks for a WebSocket, which lives on.
    #[must_use]
    pub fn lives_on(&self) -> bool {
        self.lives_on
    }

    /// Where the request goes.
    #[must_use]
    pub fn peer(&self) -> Box<HttpPeer> {
        let mut peer = HttpPeer::new(self.address, false, String::new());
        peer.options.connection_timeout = Some(CONNECT);
        peer.options.read_timeout = (!self.lives_on).then_some(SILENCE);
        peer.options.tcp_keepalive = Some(DEAD_PEERS);
        peer.options.write_timeout = Some(SILENCE);
        Box::new(peer)
    }

    /// Removes what only the edge may say, and says it.
    ///
    /// # Errors
    /// When a header cannot be set.
    pub fn rewrite_request(&self, request: &mut RequestHeader) -> pingora::Result<()> {
        if !self.lives_on {
            // What is no WebSocket is held to the times of a request, whatever a service would make of it.
            request.remove_header(&UPGRADE);
            request.remove_header(&CONNECTION);
        }
        rewrite_request(request, self.client)
    }

    /// What the client is told when the service does not answer.
    #[must_use]
    pub fn refusal(&self, error: &Error) -> Refusal {
        match error.etype() {
            ErrorType::ConnectTimedout
            | ErrorType::ConnectRefused
            | ErrorType::ConnectNoRoute
            | ErrorType::ConnectError => Refusal::NoService(self.service.name()),
            ErrorType::ReadTimedout | ErrorType::WriteTimedout => Refusal::ServiceTimeout(self.service.name()),
            _ => Refusal::ServiceFailed(self.service.name()),
        }
    }
}

/// Whether a request is the opening handshake of a WebSocket: a GET without a body that asks for nothing else.
fn asks_for_websocket(request: &RequestHeader) -> bool {
    let is = |name, word: &[u8]| {
        let values =
            request.headers.get_all(name).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
        values.map(<[u8]>::trim_ascii).any(|value| value.eq_ignore_ascii_case(word))
    };
    let has_body = request.headers.contains_key(TRANSFER_ENCODING) || request.headers.contains_key(CONTENT_LENGTH);
    let http1 = request.version == Version::HTTP_11;
    http1 && request.method == Method::GET && !has_body && is(CONNECTION, b"upgrade") && is(UPGRADE, b"websocket")
}

/// Removes what only the edge may say about a client, and says it; the target becomes a path without runs of slashes.
/// What ends at this hop the framework has removed before, with what `Connection` names.
///
/// # Errors
/// When a header cannot be set.
pub fn rewrite_request(request: &mut RequestHeader, client: Client) -> pingora::Result<()> {
    let ours = |name: &HeaderName| {
        let name = name.as_str();
        let family = name.starts_with(headers::PREFIX) && !CREDENTIALS.contains(&name);
        family || name.starts_with(FORWARDED_PREFIX) || name == FORWARDED.as_str() || name == REAL_IP.as_str()
    };
    let refused: Vec<HeaderName> = request.headers.keys().filter(|name| ours(name)).cloned().collect();
    for name in refused {
        request.remove_header(&name);
    }
    if let Some(address) = client.address {
        request.insert_header(FORWARDED_FOR, address.to_string())?;
        request.insert_header(REAL_IP, address.to_string())?;
    }
    request.insert_header(FORWARDED_PROTO, if client.tls { "https" } else { "http" })?;
    if let Some(host) = request.headers.get(HOST).cloned() {
        request.insert_header(FORWARDED_HOST, host)?;
    }
    set_path(request)
}

/// Auditors ask for `//invocations/…`, and a target may be a whole URL: services get a path, with each run of slashes
/// as one.
fn set_path(request: &mut RequestHeader) -> pingora::Result<()> {
    let path = merge_slashes(request.uri.path());
    if matches!(path, Cow::Borrowed(_)) && request.raw_path().starts_with(b"/") {
        return Ok(());
    }
    let mut target = path.into_owned();
    if let Some(query) = request.uri.query() {
        target.push('?');
        target.push_str(query);
    }
    request.set_raw_path(target.as_bytes())
}

/// The answer in place of a service's own.
///
/// # Errors
/// When a header cannot be set.
pub fn answer(refusal: &Refusal) -> pingora::Result<(ResponseHeader, Bytes)> {
    let body = Bytes::from(refusal.body().to_plain_json());
    let mut head = ResponseHeader::build(refusal.status(), Some(4))?;
    head.insert_header(CONTENT_TYPE, "application/json")?;
    head.insert_header(CONTENT_LENGTH, body.len())?;
    if let Some(wait) = refusal.retry_after() {
        head.insert_header(RETRY_AFTER, wait.as_secs())?;
    }
    Ok((head, body))
}

/// Removes what ends at this hop from an answer.
pub fn rewrite_answer(answer: &mut ResponseHeader) {
    for name in HOP_BY_HOP {
        answer.remove_header(&name);
    }
    if answer.status != StatusCode::SWITCHING_PROTOCOLS {
        answer.remove_header(&CONNECTION);
        answer.remove_header(&UPGRADE);
    }
}

#[cfg(test)]
mod tests;
