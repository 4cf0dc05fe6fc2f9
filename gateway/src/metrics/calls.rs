//! Metrics of calls: how many there are and how long they take.

use std::time::Duration;

use prometheus::{Histogram, HistogramVec, IntCounterVec, IntGauge, exponential_buckets};
use protocol::directory::Template;

use super::register::Register;

/// Calls.
pub struct Calls {
    in_flight: IntGauge,
    seconds: ByTemplate,
    /// Seconds until a call was refused before any instance was asked.
    refused: Histogram,
    first_chunk: ByTemplate,
    /// Calls with an idempotency key by what became of them (made, replayed, refused, forgotten).
    pub idempotent: IntCounterVec,
}

/// A call in flight; it counts as one until dropped.
pub struct InFlight(IntGauge);

/// One histogram per template, made once: a call looks nothing up.
struct ByTemplate {
    vllm: Histogram,
    embedding: Histogram,
    diffusion: Histogram,
    plain: Histogram,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Calls {
    pub(super) fn new(register: Register<'_>) -> prometheus::Result<Self> {
        // From 5 ms to 22 min: a refusal takes less than the first, the longest stream more than the last.
        let seconds = register.histograms(
            "chutes_gateway_call_seconds",
            "seconds from a call's head to the last byte of its answer, by template; refused if no instance was asked",
            exponential_buckets(0.005, 2.0, 19)?,
            &["template"],
        )?;
        let first_chunk = register.histograms(
            "chutes_gateway_first_chunk_seconds",
            "seconds from a call's head to the first chunk of its stream, by template",
            exponential_buckets(0.01, 2.0, 16)?,
            &["template"],
        )?;
        let idempotent = register.counters(
            "chutes_gateway_idempotent_total",
            "calls with an idempotency key by what became of them",
            &["result"],
        )?;
        // All at once: a rate sees the first only if the zero before it was there.
        for result in ["made", "replayed", "refused", "forgotten"] {
            idempotent.with_label_values(&[result]);
        }
        Ok(Self {
            idempotent,
            in_flight: register.gauge("chutes_gateway_calls_in_flight", "calls in flight")?,
            refused: seconds.with_label_values(&["refused"]),
            seconds: ByTemplate::of(&seconds),
            first_chunk: ByTemplate::of(&first_chunk),
        })
    }

    /// Counts a call as in flight for as long as the result lives.
    pub fn enter(&self) -> InFlight {
        self.in_flight.inc();
        InFlight(self.in_flight.clone())
    }

    /// Notes how long a call took that was let in.
    pub fn count_served(&self, template: Option<Template>, took: Duration) {
        self.seconds.get(template).observe(took.as_secs_f64());
    }

    /// Notes how long it took to refuse a call.
    pub fn count_refused(&self, took: Duration) {
        self.refused.observe(took.as_secs_f64());
    }

    /// Notes how long the first chunk of a stream took.
    pub fn count_first_chunk(&self, template: Option<Template>, took: Duration) {
        self.first_chunk.get(template).observe(took.as_secs_f64());
    }
}

impl ByTemplate {
    fn of(histograms: &HistogramVec) -> Self {
        let child = |label: &str| histograms.with_label_values(&[label]);
        Self {
            vllm: child("vllm"),
            embedding: child("embedding"),
            diffusion: child("diffusion"),
            plain: child("plain"),
        }
    }

    fn get(&self, template: Option<Template>) -> &Histogram {
        match template {
            Some(Template::Vllm) => &self.vllm,
            Some(Template::Embedding) => &self.embedding,
            Some(Template::Diffusion) => &self.diffusion,
            None => &self.plain,
        }
    }
}
