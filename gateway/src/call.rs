//! One call, from its head to the last byte of its answer.

pub mod answer;
mod attempt;
pub mod downstream;
mod drain;
mod entry;
mod flow;
mod http2;
pub mod intake;
mod line;
mod once;
mod opening;
pub mod place;
mod recording;
mod relay;
mod reply;
mod running;
#[cfg(test)]
mod scripted;
mod socket;
pub mod upstream;

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, Method, StatusCode};
use protocol::directory::{Cord, Template};
use protocol::headers;
use protocol::ids::CallId;
use protocol::signing::{Covers, Keypair};
use protocol::slug::Slug;

use self::answer::{Stamp, content_type, refuse, whole};
use self::downstream::Downstream;
use self::entry::{Entry, Funds};
use self::intake::{Intake, NoBody};
use self::place::Places;
use self::upstream::Instances;
use crate::auth::{Auth, Caller, Presented};
use crate::body::{Body, Form, Prepared};
use crate::clock::Clock;
use crate::directory::{Directory, Routes};
use crate::host::{cord, query};
use crate::idempotent::{self, Answers, Asked};
use crate::limit::{Limits, Quota};
use crate::metrics::Metrics;
use crate::refusal::Refusal;
use crate::reroll::{Prompt, Rerolls};
use crate::strikes::Strikes;
use crate::usage::UsageLog;

/// Purpose in the signature of a call without a body.
const PURPOSE: &str = "chutes";

/// Bytes from which sealing and opening is heavy work, some tenths of a millisecond.
pub(crate) const HEAVY: usize = 256 << 10;

/// What serves calls.
pub struct Calls<I> {
    /// The time.
    pub clock: Clock,
    /// Which chutes there are.
    pub directory: Arc<Directory>,
    /// Who calls.
    pub auth: Auth,
    /// How often and how many at once.
    pub limits: Arc<Limits>,
    /// How much a day.
    pub quota: Arc<Quota>,
    /// Room for request bodies.
    pub intake: Intake,
    /// Places on instances.
    pub places: Arc<Places>,
    /// The way to instances.
    pub instances: I,
    /// Which prompts were answered.
    pub rerolls: Rerolls,
    /// Calls that must not be made twice.
    pub answers: Arc<Answers>,
    /// What is kept of each attempt.
    pub log: UsageLog,
    /// Tells control about instances that do not understand us.
    pub strikes: Strikes,
    /// Signs requests to instances.
    pub signer: Arc<Keypair>,
    /// For what a call waits.
    pub patience: Patience,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

/// How long, and for how much, a call waits.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Time for the first piece of an answer, over all attempts of a call.
    pub first_chunk: Duration,
    /// Time that one instance has for the first piece of a stream, while another would take the call.
    pub attempt: Duration,
    /// Time for each further piece.
    pub idle: Duration,
    /// Bytes of an answer in one piece.
    pub largest: usize,
    /// Silence in an event stream after which its client gets a comment, if it gets any.
    pub keepalive: Option<Duration>,
}

/// Whom a call is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Room {
    /// The chute of this label.
    Chute(Slug),
    /// The chute of this template that the body names.
    Facade(Template),
}

/// The head of a request on a call host.
pub struct Request {
    /// Whom it is for.
    pub room: Room,
    /// Its method.
    pub method: Method,
    /// Its path, slashes merged.
    pub path: String,
    /// Its query.
    pub query: String,
    /// Its fields.
    pub headers: HeaderMap,
    /// The length of its body, if it says one.
    pub announced: Option<u64>,
    /// When it had arrived.
    pub arrived: Instant,
}

impl Request {
    /// Its key, if it must not be served twice; what only reads may be.
    fn key(&self) -> Result<Option<&str>, Refusal> {
        Ok(idempotent::key(&self.headers)?.filter(|_| self.method == Method::POST))
    }

    fn asks_for_thinking(&self) -> bool {
        self.headers.get(headers::ENABLE_THINKING).is_some_and(|value| value.as_bytes() == b"true")
    }

    fn form(&self) -> Form {
        match self.room {
            Room::Chute(_) => Form::Own,
            Room::Facade(template) => Form::of(template, &self.path),
        }
    }
}

/// A call that may go to an instance.
struct Job {
    stamp: Stamp,
    arrived: Instant,
    caller: Caller,
    entry: Entry,
    cord: Cord,
    form: Form,
    prompt: Option<Prompt>,
    /// None for a call that may be made as often as it is asked for.
    asked: Option<Asked>,
    prepared: Prepared,
    query: Vec<(String, String)>,
    _memory: intake::Memory,
}

/// Why a request does not become a job.
enum Turned {
    Refused(Refusal),
    Gone,
}

impl<I: Instances> Calls<I> {
    /// Answers a request, whatever comes.
    pub async fn serve(&self, request: Request, client: &mut impl Downstream) {
        let mut stamp = Stamp { call: CallId::random(), standing: None };
        if request.room == Room::Facade(Template::Vllm) && request.path == "/v1/models" {
            return self.list_models(&request.method, stamp, client).await;
        }
        let _in_flight = self.metrics.calls.enter();
        let arrived = request.arrived;
        match self.admit(request, &mut stamp, client).await {
            Ok(mut job) => {
                let template = job.entry.route.chute.template;
                match job.asked.take() {
                    // Apart, so that other calls need no memory for it.
                    Some(asked) => Box::pin(self.once(job, asked, client)).await,
                    None => drop(self.attempt(job, client).await),
                }
                self.metrics.calls.count_served(template, arrived.elapsed());
            }
            Err(Turned::Refused(refusal)) => {
                self.turn_away(&refusal, stamp, client).await;
                self.metrics.calls.count_refused(arrived.elapsed());
            }
            Err(Turned::Gone) => self.metrics.requests.left.inc(),
        }
    }

    /// Refuses a request.
    pub async fn turn_away(&self, refusal: &Refusal, stamp: Stamp, client: &mut impl Downstream) {
        self.metrics.requests.count_refusal(refusal);
        refuse(client, refusal, stamp).await;
    }

    async fn list_models(&self, method: &Method, stamp: Stamp, client: &mut impl Downstream) {
        if method != Method::GET && method != Method::HEAD {
            return self.turn_away(&Refusal::MethodNotAllowed("GET"), stamp, client).await;
        }
        let Some(routes) = self.directory.current() else {
            return self.turn_away(&Refusal::NotReady("the directory has not come yet"), stamp, client).await;
        };
        let mut fields = stamp.fields();
        fields.push(content_type("application/json"));
        self.metrics.requests.model_lists.inc();
        // A client that is gone needs no list.
        let _ = whole(client, StatusCode::OK, fields, routes.model_list()).await;
    }

    /// By what calls are routed, once any may be let in.
    fn routes(&self) -> Result<Arc<Routes>, Refusal> {
        let routes = self.directory.current().ok_or(Refusal::NotReady("the directory has not come yet"))?;
        let may_enter = self.limits.are_known();
        may_enter.then_some(routes).ok_or(Refusal::NotReady("no leases were taken from redis yet"))
    }

    /// Everything that comes before the first attempt, in its order.
    async fn admit(&self, request: Request, stamp: &mut Stamp, client: &mut impl Downstream) -> Result<Job, Turned> {
        let routes = self.routes()?;
        let query = query::parameters(&request.query)?;
        let key = request.key()?;
        let funds = if key.is_some() { Funds::Later } else { Funds::Now };
        let presented = self.presented(&request, &routes)?;
        let early = self.identify_early(presented).await?;
        let mut entry = None;
        if let (Ok(caller), Room::Chute(slug)) = (&early, &request.room) {
            let route = routes.by_slug(slug.as_str());
            entry = Some(self.enter(caller, route, Refusal::UnknownChute, stamp, funds).await?);
        }
        let raw = self.intake.read(client, request.announced).await?;
        let caller = match early {
            Ok(caller) => caller,
            Err(signed) => self.auth.identify(signed, covers(&raw.bytes)).await?,
        };
        let thinking = request.asks_for_thinking();
        let form = request.form();
        let (entry, body) = match &request.room {
            Room::Chute(slug) => {
                let route = routes.by_slug(slug.as_str());
                let entry = match entry {
                    Some(entry) => entry,
                    None => self.enter(&caller, route, Refusal::UnknownChute, stamp, funds).await?,
                };
                let body = Body::read(entry.route.chute.template, &raw.bytes, thinking)?;
                (entry, body)
            }
            Room::Facade(template) => {
                let body = Body::read(Some(*template), &raw.bytes, thinking)?.translated(form)?;
                let model = body.model().ok_or_else(|| Refusal::BadRequest("model is required".into()))?;
                let route = routes.by_name(*template, model, caller.user.id);
                let unknown = Refusal::UnknownModel(model.to_owned());
                (self.enter(&caller, route, unknown, stamp, funds).await?, body)
            }
        };
        let asked = match key {
            Some(key) => Some(self.asked(&request, key, &caller, &raw.bytes).await?),
            None => None,
        };
        let stream = body.stream() || (raw.bytes.is_empty() && query::asks_for_stream(&query));
        let chute = &entry.route.chute;
        let cord = cord::find(chute, &request.method, form.cord_path(&request.path), stream)?.clone();
        let prompt = self.rerolls.prompt(caller.user.id, chute.id, body.asked());
        let prepared = body.prepare(chute, &cord)?;
        Ok(Job {
            stamp: *stamp,
            arrived: request.arrived,
            caller,
            entry,
            cord,
            form,
            prompt,
            asked,
            prepared,
            query,
            _memory: raw.memory,
        })
    }

    /// Who calls, or the signature that says so.
    ///
    /// A signature covers the body: who signed is known only once that is read. Until then neither his limits are
    /// touched nor his view of the chute asked for: the answer would tell strangers which private chutes there are.
    async fn identify_early(&self, presented: Presented) -> Result<Result<Caller, Presented>, Refusal> {
        self.auth.screen(&presented).await?;
        if matches!(presented, Presented::Signed { .. }) {
            return Ok(Err(presented));
        }
        Ok(Ok(self.auth.identify(presented, Covers::Purpose(PURPOSE)).await?))
    }

    /// The credential of a request that may be a call at all.
    fn presented(&self, request: &Request, routes: &Routes) -> Result<Presented, Refusal> {
        if matches!(request.room, Room::Facade(_)) && request.method != Method::POST {
            return Err(Refusal::MethodNotAllowed("POST"));
        }
        let presented = Presented::read(&request.headers)?;
        match (&presented, &request.room) {
            // Without a credential a private chute must look like none.
            (Presented::None, Room::Chute(slug)) if !entry::is_public(routes, slug) => Err(Refusal::UnknownChute),
            _ => Ok(presented),
        }
    }
}

/// What a signature must cover: the body, or the purpose where there is none.
fn covers(body: &[u8]) -> Covers<'_> {
    if body.is_empty() { Covers::Purpose(PURPOSE) } else { Covers::Body(body) }
}

impl From<Refusal> for Turned {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<NoBody> for Turned {
    fn from(none: NoBody) -> Self {
        match none {
            NoBody::Refused(refusal) => Self::Refused(refusal),
            NoBody::Gone => Self::Gone,
        }
    }
}
