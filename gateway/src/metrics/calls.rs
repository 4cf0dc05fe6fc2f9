//! Metrics of calls and their attempts.

use std::time::Duration;

use http::StatusCode;
use prometheus::{HistogramVec, IntCounterVec, IntGauge, exponential_buckets};
use protocol::directory::Template;
use protocol::usage::Outcome;

use super::register::Register;

/// Calls and their attempts.
pub struct Calls {
    /// Answers of call hosts by status class and refusal code (`none` when relayed).
    pub answers: IntCounterVec,
    /// Attempts by outcome (finished, failed, aborted, lost).
    pub attempts: IntCounterVec,
    /// Failed attempts by reason.
    pub failures: IntCounterVec,
    /// Calls with an idempotency key by what became of them (made, replayed, refused, forgotten).
    pub idempotent: IntCounterVec,
    /// Calls in flight.
    pub in_flight: IntGauge,
    /// Seconds to the first chunk by template.
    pub first_chunk: HistogramVec,
}

/// A call in flight; it counts as one until dropped.
pub struct InFlight(IntGauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Calls {
    pub(super) fn new(register: Register<'_>) -> prometheus::Result<Self> {
        Ok(Self {
            answers: register.counters("chutes_gateway_answers_total", "answers of call hosts", &["status", "code"])?,
            attempts: register.counters("chutes_gateway_attempts_total", "attempts by outcome", &["outcome"])?,
            failures: register.counters("chutes_gateway_failures_total", "failed attempts by reason", &["reason"])?,
            idempotent: register.counters(
                "chutes_gateway_idempotent_total",
                "calls with an idempotency key by what became of them",
                &["result"],
            )?,
            in_flight: register.gauge("chutes_gateway_calls_in_flight", "calls in flight")?,
            first_chunk: register.histograms(
                "chutes_gateway_first_chunk_seconds",
                "seconds to the first chunk",
                exponential_buckets(0.01, 2.0, 16)?,
                &["template"],
            )?,
        })
    }

    /// Counts a call as in flight for as long as the result lives.
    pub fn enter(&self) -> InFlight {
        self.in_flight.inc();
        InFlight(self.in_flight.clone())
    }

    /// Counts an answer of a call host; `code` is a refusal's, or `none`.
    pub fn count_answer(&self, status: StatusCode, code: &str) {
        let class = ["1xx", "2xx", "3xx", "4xx", "5xx"][usize::from(status.as_u16() / 100).clamp(1, 5) - 1];
        self.answers.with_label_values(&[class, code]).inc();
    }

    /// Counts an attempt that is over.
    pub fn count_attempt(&self, outcome: Outcome) {
        let outcome = match outcome {
            Outcome::Finished => "finished",
            Outcome::Failed => "failed",
            Outcome::Aborted => "aborted",
            Outcome::Lost => "lost",
        };
        self.attempts.with_label_values(&[outcome]).inc();
    }

    /// Notes how long the first piece of an answer took.
    pub fn count_first_chunk(&self, template: Option<Template>, took: Duration) {
        let template = match template {
            Some(Template::Vllm) => "vllm",
            Some(Template::Embedding) => "embedding",
            Some(Template::Diffusion) => "diffusion",
            None => "none",
        };
        self.first_chunk.with_label_values(&[template]).observe(took.as_secs_f64());
    }
}
