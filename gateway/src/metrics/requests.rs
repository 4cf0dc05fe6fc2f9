//! Metrics of requests and of the answers they got.

use http::StatusCode;
use prometheus::{IntCounter, IntCounterVec};
use protocol::directory::Template;

use super::register::Register;
use crate::forward::Service;
use crate::instance::verdict::Blame;
use crate::refusal::Refusal;

/// Classes of status codes, from the lowest.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// Requests and answers.
pub struct Requests {
    by_host: ByHost,
    answers: IntCounterVec,
    /// Answers that are no refusal of ours, by status class.
    relayed: [IntCounter; 5],
    service_answers: IntCounterVec,
    /// Lists of models: no answers to calls, and nobody needs a credential for them.
    pub model_lists: IntCounter,
    /// Clients that went away before they had an answer.
    pub left: IntCounter,
}

/// For whom a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// One chute.
    Chute,
    /// The chute of this template that the body names.
    Facade(Template),
    /// A service of ours.
    Service(Service),
    /// Nobody: an unknown host, or a request that can be read in two ways.
    Nobody,
}

struct ByHost {
    chute: IntCounter,
    llm: IntCounter,
    embed: IntCounter,
    image: IntCounter,
    api: IntCounter,
    registry: IntCounter,
    ws: IntCounter,
    events: IntCounter,
    nobody: IntCounter,
}

impl Requests {
    pub(super) fn new(register: Register<'_>) -> prometheus::Result<Self> {
        let by_host = register.counters("chutes_gateway_requests_total", "requests by host", &["host"])?;
        let host = |label: &str| by_host.with_label_values(&[label]);
        let answers = register.counters(
            "chutes_gateway_answers_total",
            "answers to calls and refusals, once they are over, by status class, the refusal's code, and whose fault it is",
            &["status", "code", "blame"],
        )?;
        let service_answers = register.counters(
            "chutes_gateway_service_answers_total",
            "answers of our own services and lists of models, by service and status class",
            &["service", "status"],
        )?;
        let relayed = CLASSES.map(|class| answers.with_label_values(&[class, "none", relayed_blame(class)]));
        Ok(Self {
            by_host: ByHost {
                chute: host("chute"),
                llm: host("llm"),
                embed: host("embed"),
                image: host("image"),
                api: host("api"),
                registry: host("registry"),
                ws: host("ws"),
                events: host("events"),
                nobody: host("nobody"),
            },
            answers,
            relayed,
            model_lists: service_answers.with_label_values(&["models", CLASSES[class(StatusCode::OK)]]),
            service_answers,
            left: register.counter("chutes_gateway_clients_left_total", "clients that left before an answer began")?,
        })
    }

    /// Counts a request.
    pub fn count(&self, host: Host) {
        let hosts = &self.by_host;
        let counter = match host {
            Host::Chute => &hosts.chute,
            Host::Facade(Template::Vllm) => &hosts.llm,
            Host::Facade(Template::Embedding) => &hosts.embed,
            Host::Facade(Template::Diffusion) => &hosts.image,
            Host::Service(Service::Api) => &hosts.api,
            Host::Service(Service::Registry) => &hosts.registry,
            Host::Service(Service::Ws) => &hosts.ws,
            Host::Service(Service::Events) => &hosts.events,
            Host::Nobody => &hosts.nobody,
        };
        counter.inc();
    }

    /// Counts an answer that is no refusal.
    pub fn count_relayed(&self, status: StatusCode) {
        self.relayed[class(status)].inc();
    }

    /// Counts a refusal.
    pub fn count_refusal(&self, refusal: &Refusal) {
        let labels = [CLASSES[class(refusal.status())], refusal.code(), refusal.blame().as_str()];
        self.answers.with_label_values(&labels).inc();
    }

    /// Counts an answer that had begun when it failed.
    pub fn count_late_refusal(&self, refusal: &Refusal) {
        let labels = [CLASSES[class(StatusCode::OK)], refusal.code(), refusal.blame().as_str()];
        self.answers.with_label_values(&labels).inc();
    }

    /// Counts an answer of one of our own services.
    pub fn count_service_answer(&self, service: Service, status: StatusCode) {
        self.service_answers.with_label_values(&[service.name(), CLASSES[class(status)]]).inc();
    }
}

/// The place of a status in [`CLASSES`].
fn class(status: StatusCode) -> usize {
    usize::from(status.as_u16() / 100).clamp(1, CLASSES.len()) - 1
}

/// Whose fault an instance's own answer is.
fn relayed_blame(class: &str) -> &'static str {
    match class {
        "4xx" => Blame::Client.as_str(),
        "5xx" => Blame::Instance.as_str(),
        _ => "none",
    }
}
