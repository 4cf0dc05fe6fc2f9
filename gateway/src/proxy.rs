//! One request, room by room: the table of contents of the edge.

use std::any::Any;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use http::header::TRANSFER_ENCODING;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::Digest;
use pingora::protocols::http::ServerSession;
use pingora::proxy::{FailToProxy, ProxyHttp, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorSource, ErrorType};
use protocol::directory::Template;
use protocol::ids::CallId;

use crate::call::answer::Stamp;
use crate::call::downstream::Client;
use crate::call::upstream::Network;
use crate::call::{Calls, Request, Room};
use crate::edge::admission::Admission;
use crate::edge::holdings::Held;
use crate::edge::{self, Largest, Upload};
use crate::forward::{self, Forwarded, Service, Services};
use crate::framing;
use crate::host::{Hosts, Target, merge_slashes};
use crate::leaving::Asked;
use crate::lifecycle::{Lifecycle, Running};
use crate::metrics::{Host, Refused};
use crate::refusal::Refusal;
use crate::tls::TlsName;

/// Everything that the public listeners serve.
pub struct Proxy {
    /// Which names are whose.
    pub hosts: Hosts,
    /// Our own services behind the edge.
    pub services: Services,
    /// Calls of chutes.
    pub calls: Calls<Network>,
    /// Says whether there is room for a call.
    pub admission: Arc<Admission>,
    /// The largest request head.
    pub largest_head: Largest,
    /// Counts requests in flight.
    pub lifecycle: Arc<Lifecycle>,
    /// How long a client may be silent while it sends its body.
    pub client_silence: Duration,
    /// How long a client may take nothing of what it is sent.
    pub client_stall: Duration,
}

/// One request, as long as it is in the house.
pub struct Visit {
    forwarded: Option<(Forwarded, Held)>,
    /// None for a socket that lives on: a stopping program does not wait for it.
    running: Option<Running>,
}

/// Where a request goes on.
enum Way {
    Service(Service),
    Call(Room),
}

impl Way {
    /// Under what it is counted.
    fn host(&self) -> Host {
        match self {
            Self::Service(service) => Host::Service(*service),
            Self::Call(Room::Chute(_)) => Host::Chute,
            Self::Call(Room::Facade(template)) => Host::Facade(*template),
        }
    }
}

impl Proxy {
    /// The room that a request asks for.
    fn way(&self, session: &ServerSession) -> Result<Way, Refusal> {
        let request = session.req_header();
        let raw = (!session.is_http2()).then(|| session.to_h1_raw());
        edge::head_is_read(session, self.largest_head)?;
        framing::check(request, raw.as_deref()).map_err(|unclear| Refusal::BadRequest(unclear.into()))?;
        let room = match self.hosts.target(tls_name(session), &request.uri, &request.headers)? {
            Target::Api => return Ok(Way::Service(Service::Api)),
            Target::Registry => return Ok(Way::Service(Service::Registry)),
            Target::Ws => return Ok(Way::Service(Service::Ws)),
            Target::Events => return Ok(Way::Service(Service::Events)),
            Target::Llm => Room::Facade(Template::Vllm),
            Target::Embed => Room::Facade(Template::Embedding),
            Target::Image => Room::Facade(Template::Diffusion),
            Target::Chute(slug) => Room::Chute(slug),
        };
        Ok(Way::Call(room))
    }

    async fn serve_call(&self, session: &mut ServerSession, room: Room) {
        let arrived = Instant::now();
        if let Err(refusal) = self.admission.call().await {
            self.turn_away(session, &refusal).await;
            return self.calls.metrics.calls.count_refused(arrived.elapsed());
        }
        let request = session.req_header();
        let request = Request {
            room,
            method: request.method.clone(),
            path: merge_slashes(request.uri.path()).into_owned(),
            query: request.uri.query().unwrap_or_default().to_owned(),
            headers: request.headers.clone(),
            announced: framing::length(&request.headers),
            arrived,
        };
        self.calls.serve(request, &mut Client::new(session, self.client_silence)).await;
    }

    /// The way of a request to a service, if it can go there now.
    fn forward(&self, service: Service, session: &ServerSession) -> Result<(Forwarded, Held), Refusal> {
        let forwarded = self.services.forward(service, session)?;
        let held = self.admission.forward(forwarded.client().address)?;
        Ok((forwarded, held))
    }

    async fn turn_away(&self, session: &mut ServerSession, refusal: &Refusal) {
        let stamp = Stamp { call: CallId::random(), standing: None };
        self.calls.turn_away(refusal, stamp, &mut Client::new(session, self.client_silence)).await;
    }
}

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = Visit;

    fn new_ctx(&self) -> Visit {
        Visit { forwarded: None, running: Some(self.lifecycle.enter()) }
    }

    fn on_connection_reuse(&self, _session: &mut Session, _visit: &mut Visit, before: Box<dyn Any + Send + Sync>) {
        if let Some(asked) = before.downcast_ref::<Asked>() {
            asked.note();
        }
    }

    async fn early_request_filter(&self, session: &mut Session, _visit: &mut Visit) -> pingora::Result<()> {
        session.set_write_timeout(Some(self.client_stall));
        // Bytes of a next request are then kept for it, instead of breaking this one.
        session.set_pipelining_enabled(true);
        // A refusal reads the body off itself, so that the connection can go on.
        session.set_close_on_response_before_downstream_finish(false);
        Ok(())
    }

    async fn request_filter(&self, session: &mut Session, visit: &mut Visit) -> pingora::Result<bool> {
        let session = session.as_downstream_mut();
        let way = self.way(session);
        self.calls.metrics.requests.count(way.as_ref().map_or(Host::Nobody, Way::host));
        if session.req_header().headers.contains_key(TRANSFER_ENCODING) {
            // Where chunks end is read in more than one way: what comes behind them is no request.
            session.set_keepalive(None);
        }
        match way {
            Ok(Way::Call(room)) => self.serve_call(session, room).await,
            Ok(Way::Service(service)) => match self.forward(service, session) {
                Ok((forwarded, held)) => {
                    session.set_close_on_response_before_downstream_finish(true);
                    // A client that has ended its side behind its request may still read the answer.
                    session.set_abort_on_close(forwarded.lives_on());
                    session.set_read_timeout((!forwarded.lives_on()).then_some(self.client_silence));
                    if forwarded.lives_on() {
                        visit.running = None;
                    }
                    visit.forwarded = Some((forwarded, held));
                    return Ok(false);
                }
                Err(refusal) => self.turn_away(session, &refusal).await,
            },
            Err(refusal) => {
                // What could be read in two ways may be followed by anything.
                session.set_keepalive(None);
                self.turn_away(session, &refusal).await;
            }
        }
        Ok(true)
    }

    async fn upstream_peer(&self, _session: &mut Session, visit: &mut Visit) -> pingora::Result<Box<HttpPeer>> {
        match &visit.forwarded {
            Some((forwarded, _)) => Ok(forwarded.peer()),
            None => Error::e_explain(ErrorType::InternalError, "a request went on without a service"),
        }
    }

    async fn connected_to_upstream(
        &self,
        session: &mut Session,
        _reused: bool,
        _peer: &HttpPeer,
        _socket: RawFd,
        digest: Option<&Digest>,
        _visit: &mut Visit,
    ) -> pingora::Result<()> {
        let session = session.as_downstream_mut();
        if !session.is_body_done()
            && let Some(upload) = Upload::of(session)
        {
            upload.is_awaited(self.client_silence, digest.and_then(|digest| digest.socket_digest.clone()));
        }
        Ok(())
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        _piece: &mut Option<Bytes>,
        is_last: bool,
        _visit: &mut Visit,
    ) -> pingora::Result<()> {
        if let Some(upload) = Upload::of(session.as_downstream()) {
            if is_last { upload.is_over() } else { upload.has_moved() }
        }
        Ok(())
    }

    async fn upstream_request_filter(
        &self,
        _session: &mut Session,
        request: &mut RequestHeader,
        visit: &mut Visit,
    ) -> pingora::Result<()> {
        match &visit.forwarded {
            Some((forwarded, _)) => forwarded.rewrite_request(request),
            None => Ok(()),
        }
    }

    async fn response_filter(
        &self,
        _session: &mut Session,
        answer: &mut ResponseHeader,
        _visit: &mut Visit,
    ) -> pingora::Result<()> {
        forward::rewrite_answer(answer);
        Ok(())
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, visit: &mut Visit) -> FailToProxy {
        let failed = FailToProxy { error_code: 0, can_reuse_downstream: false };
        let Some((forwarded, _)) = visit.forwarded.as_ref() else { return failed };
        if let Some(upload) = Upload::of(session.as_downstream()) {
            upload.is_over();
        }
        let refusal = if matches!(error.esource(), ErrorSource::Downstream) {
            let Some(refusal) = framing::refusal(error) else { return failed };
            if refusal == Refusal::BodyTimeout {
                self.calls.metrics.edge.refused(Refused::SilentBody).inc();
            }
            refusal
        } else {
            let (service, reason) = (forwarded.service().name(), error.etype().as_str());
            tracing::warn!(service, reason, "a service did not answer");
            forwarded.refusal(error)
        };
        if session.response_written().is_none()
            && let Ok((head, body)) = forward::answer(&refusal)
        {
            // A client that is gone needs no answer.
            let _ = session.as_downstream_mut().write_error_response(head, body).await;
        }
        FailToProxy { error_code: refusal.status().as_u16(), ..failed }
    }

    async fn logging(&self, session: &mut Session, _error: Option<&Error>, visit: &mut Visit) {
        if let (Some((forwarded, _)), Some(answer)) = (&visit.forwarded, session.response_written()) {
            self.calls.metrics.requests.count_service_answer(forwarded.service(), answer.status);
        }
    }

    fn suppress_error_log(&self, _session: &Session, _visit: &Visit, _error: &Error) -> bool {
        // The framework's line names the client's whole request.
        true
    }
}

/// The name that the client gave in its TLS handshake.
fn tls_name(session: &ServerSession) -> Option<&str> {
    let tls = session.digest()?.ssl_digest.as_ref()?;
    tls.extension.get::<TlsName>().map(|name| name.0.as_str())
}
