//! An instance's side of the SDK's wire: check the signature, open the request, answer sealed.

mod answer;

use std::convert::Infallible;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use protocol::envelope::instance::{OpenedRequest, open_request};
use protocol::headers;
use protocol::sealing::InstanceKey;
use protocol::signing::{Covers, Hotkey, OutwardSigned, verify_outward};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{info, warn};

use super::counters::Counters;
use super::engine::Engine;
use super::faults::{Behaviour, Fault};
use super::{Settings, steering};
use answer::{Body, Call};

/// Seconds a nonce may be away from now in SDK 0.3.33.
const WINDOW: i64 = 30;
/// More than a gateway sends: 32 MiB in base64.
const LARGEST_BODY: usize = 64 << 20;

/// One instance as its connections share it.
pub(super) struct Instance {
    key: InstanceKey,
    engine: Engine,
    model: String,
    concurrency: usize,
    validator: Hotkey,
    hotkey: Hotkey,
    pub(super) port: u16,
    state: Mutex<State>,
    /// Whether it was killed: then it has no port and no connections.
    dead: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    behaviour: Behaviour,
    counters: Counters,
}

/// Serves the instances of a settings file until the process is told to stop.
///
/// # Errors
/// When the file is wrong or a port is taken.
pub async fn serve(file: &Path) -> anyhow::Result<()> {
    let text = std::fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    let settings: Settings = serde_json::from_slice(&text).with_context(|| format!("reading {}", file.display()))?;
    let mut servers = JoinSet::new();
    let mut instances = Vec::new();
    for described in &settings.instances {
        let instance = Arc::new(Instance::new(&settings, described)?);
        let listener = TcpListener::bind(("127.0.0.1", described.port)).await;
        let listener = listener.with_context(|| format!("opening port {}", described.port))?;
        servers.spawn(listen(listener, Arc::clone(&instance)));
        instances.push(instance);
    }
    let steering_wheel = TcpListener::bind(("127.0.0.1", settings.steering_port)).await.context("opening steering")?;
    servers.spawn(steering::listen(steering_wheel, instances));
    info!(instances = settings.instances.len(), "the sample miner serves");
    let mut stop = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    stop.recv().await;
    Ok(())
}

async fn listen(listener: TcpListener, instance: Arc<Instance>) {
    let mut connections = JoinSet::new();
    let mut death = instance.dead.subscribe();
    loop {
        tokio::select! {
            // The listener and all connections close here; an error cannot be, since the instance is ours.
            _ = death.wait_for(|dead| *dead) => return,
            accepted = listener.accept() => match accepted {
                Ok((socket, peer)) => {
                    if peer.ip().to_string() == "127.0.0.1" {
                        instance.with(|state| state.counters.trusted_peer += 1);
                        warn!(port = instance.port, "a peer at 127.0.0.1 would be trusted blindly by a real container");
                    }
                    // A token per write: the pace of a stream must reach the wire.
                    let _ = socket.set_nodelay(true);
                    let instance = Arc::clone(&instance);
                    connections.spawn(async move {
                        let service = service_fn(move |request| {
                            let instance = Arc::clone(&instance);
                            async move { Ok::<_, Infallible>(instance.respond(request).await) }
                        });
                        // An error here is the other side closing early, which the answer's own guard counts.
                        let _ = hyper::server::conn::http1::Builder::new()
                            .serve_connection(TokioIo::new(socket), service)
                            .await;
                    });
                }
                Err(error) => warn!(%error, port = instance.port, "could not accept a connection"),
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

impl Instance {
    fn new(settings: &Settings, described: &super::Instance) -> anyhow::Result<Self> {
        ensure!(described.concurrency > 0, "an instance serves at least one call");
        Ok(Self {
            key: InstanceKey::from_hex(&described.key).context("reading an instance's key")?,
            engine: described.engine,
            model: described.model.clone(),
            concurrency: described.concurrency,
            validator: settings.validator.clone(),
            hotkey: settings.hotkey.clone(),
            port: described.port,
            state: Mutex::default(),
            dead: watch::Sender::new(false),
        })
    }

    /// Does something with the shared state, briefly.
    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn counters(&self) -> Counters {
        self.with(|state| state.counters.clone())
    }

    pub(super) fn behave(&self, behaviour: Behaviour) {
        self.with(|state| state.behaviour = behaviour);
    }

    /// Closes its port and all its connections for good, as when its machine dies.
    pub(super) fn kill(&self) {
        self.dead.send_replace(true);
    }

    async fn respond(self: &Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let Ok(body) = Limited::new(body, LARGEST_BODY).collect().await else {
            return refuse(StatusCode::BAD_REQUEST, "body cannot be read");
        };
        let body = body.to_bytes();
        match self.open(&head, &body) {
            Ok(opened) => self.admit(&head, opened).await,
            Err(refusal) => {
                self.with(|state| state.counters.rejected += 1);
                *refusal
            }
        }
    }

    /// What an SDK container checks before it looks at the call.
    fn open(&self, head: &http::request::Parts, body: &Bytes) -> Result<OpenedRequest, Box<Response<Body>>> {
        let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
        let signed = (|| {
            Some(OutwardSigned {
                miner: header(headers::MINER)?,
                validator: header(headers::VALIDATOR)?,
                nonce: header(headers::NONCE)?,
                signature: header(headers::SIGNATURE)?,
            })
        })();
        let Some(signed) = signed else {
            return Err(Box::new(refuse(StatusCode::UNAUTHORIZED, "go away (missing)")));
        };
        let now = crate::clock::now().timestamp();
        verify_outward(&signed, &self.hotkey, &self.validator, Covers::Body(body), now, WINDOW)
            .map_err(|_| Box::new(refuse(StatusCode::UNAUTHORIZED, "go away (sig)")))?;
        open_request(&self.key, head.uri.path(), body)
            .map_err(|_| Box::new(refuse(StatusCode::UNAVAILABLE_FOR_LEGAL_REASONS, "decryption failed")))
    }

    /// The concurrency limit, the faults, then the engine.
    async fn admit(self: &Arc<Self>, head: &http::request::Parts, opened: OpenedRequest) -> Response<Body> {
        let admitted = self.with(|state| {
            state.counters.accepted += 1;
            if state.counters.in_flight >= self.concurrency {
                state.counters.limited += 1;
                return None;
            }
            state.counters.in_flight += 1;
            state.counters.most_in_flight = state.counters.most_in_flight.max(state.counters.in_flight);
            Some((state.behaviour.next_fault(), state.behaviour.clone()))
        });
        let Some((fault, behaviour)) = admitted else {
            let words = format!("instance is at its concurrency of {}", self.concurrency);
            let body = serde_json::json!({"error": "RateLimitExceeded", "detail": words});
            return answer::plain(StatusCode::TOO_MANY_REQUESTS, &body);
        };
        let call = Call::new(Arc::clone(self), opened.iv, fault.clone(), behaviour);
        match fault {
            Fault::Status { code, detail } => {
                call.done();
                return refuse(StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), &detail);
            }
            Fault::Hang => std::future::pending().await,
            Fault::None | Fault::EmptyStream | Fault::DieAfter { .. } | Fault::StallAfter { .. } | Fault::Garble => {}
        }
        let pickled = head.headers.contains_key(headers::SERIALIZED);
        if pickled && !self.engine.takes_nothing(&opened.path) {
            self.with(|state| state.counters.pickled += 1);
            warn!(port = self.port, "a call came in the pickle form, which the sample miner does not read");
            call.done();
            return refuse(StatusCode::INTERNAL_SERVER_ERROR, "the sample miner does not read the pickle form");
        }
        let argument = if pickled { Value::Null } else { serde_json::from_slice(&opened.body).unwrap_or(Value::Null) };
        call.answer(self.engine.answer(&self.model, &opened.path, &argument)).await
    }
}

fn refuse(status: StatusCode, detail: &str) -> Response<Body> {
    answer::plain(status, &serde_json::json!({ "detail": detail }))
}
