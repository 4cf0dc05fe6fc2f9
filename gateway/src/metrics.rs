//! Every metric of the program.

use std::time::Duration;

use http::StatusCode;
use prometheus::{HistogramVec, IntCounter, IntCounterVec, IntGauge, Registry, histogram_opts, opts};
use protocol::directory::Template;
use protocol::usage::Outcome;

/// The metrics of one gateway process.
pub struct Metrics {
    /// Where they are registered.
    pub registry: Registry,

    // Edge
    /// Answers of call hosts by status class and refusal code (`none` when relayed).
    pub answers: IntCounterVec,
    /// Attempts by outcome (finished, failed, aborted, lost).
    pub attempts: IntCounterVec,
    /// Failed attempts by reason.
    pub failures: IntCounterVec,
    /// Calls in flight.
    pub in_flight: IntGauge,
    /// Seconds to the first chunk by template.
    pub first_chunk: HistogramVec,

    // Who
    /// Version of the directory in force.
    pub directory_version: IntGauge,
    /// Unix time at which the directory in force was made.
    pub directory_made_at: IntGauge,
    /// Unix time at which Redis last confirmed the directory in force; its age while Redis is away.
    pub directory_seen_at: IntGauge,
    /// Instances left out of the directory in force because their key cannot be opened.
    pub directory_unopened: IntGauge,
    /// Snapshots refused by reason.
    pub directory_refused: IntCounterVec,
    /// Whether the principal connection to Redis is alive (1) or not (0).
    pub principals_connected: IntGauge,
    /// Principal sets refused because they were too small, older, or unreadable.
    pub principals_refused: IntCounter,
    /// Questions put to control because Redis did not hold all principals.
    pub principals_looked_up: IntCounter,
    /// Principals in memory.
    pub principals_held: IntGauge,

    // Usage
    /// Sequences given out minus sequences confirmed in Postgres.
    pub unconfirmed: IntGauge,
    /// Finals that could not be written anywhere.
    pub records_dropped: IntCounter,
    /// Log directories of dead processes taken over.
    pub logs_adopted: IntCounter,
    /// Whether the record log can be written (1) or not (0).
    pub log_writable: IntGauge,
}

/// A call in flight; it counts as one until dropped.
pub struct InFlight(IntGauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    /// Counts a call as in flight for as long as the result lives.
    pub fn enter_call(&self) -> InFlight {
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

    /// Registers every metric.
    ///
    /// # Errors
    /// When two metrics have one name.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str| -> prometheus::Result<IntCounter> {
            let metric = IntCounter::new(name, help)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let counters = |name: &str, help: &str, labels: &[&str]| -> prometheus::Result<IntCounterVec> {
            let metric = IntCounterVec::new(opts!(name, help), labels)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let gauge = |name: &str, help: &str| -> prometheus::Result<IntGauge> {
            let metric = IntGauge::new(name, help)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let first_chunk = HistogramVec::new(
            histogram_opts!(
                "chutes_gateway_first_chunk_seconds",
                "seconds to the first chunk",
                prometheus::exponential_buckets(0.01, 2.0, 16)?
            ),
            &["template"],
        )?;
        registry.register(Box::new(first_chunk.clone()))?;
        Ok(Self {
            answers: counters("chutes_gateway_answers_total", "answers of call hosts", &["status", "code"])?,
            attempts: counters("chutes_gateway_attempts_total", "attempts by outcome", &["outcome"])?,
            failures: counters("chutes_gateway_failures_total", "failed attempts by reason", &["reason"])?,
            in_flight: gauge("chutes_gateway_calls_in_flight", "calls in flight")?,
            first_chunk,
            directory_version: gauge("chutes_gateway_directory_version", "version of the directory in force")?,
            directory_made_at: gauge("chutes_gateway_directory_made_at_seconds", "when the directory was made")?,
            directory_seen_at: gauge("chutes_gateway_directory_seen_at_seconds", "when redis last confirmed it")?,
            directory_unopened: gauge("chutes_gateway_directory_unopened_instances", "instances left out")?,
            directory_refused: counters("chutes_gateway_directory_refused_total", "snapshots refused", &["reason"])?,
            principals_connected: gauge("chutes_gateway_principals_connected", "whether principals are followed")?,
            principals_refused: counter("chutes_gateway_principals_refused_total", "principal sets refused")?,
            principals_looked_up: counter("chutes_gateway_principals_looked_up_total", "questions put to control")?,
            principals_held: gauge("chutes_gateway_principals_held", "principals in memory")?,
            unconfirmed: gauge("chutes_gateway_unconfirmed_records", "records not yet in the database")?,
            records_dropped: counter("chutes_gateway_records_dropped_total", "records that could not be written")?,
            logs_adopted: counter("chutes_gateway_logs_adopted_total", "logs of dead processes taken over")?,
            log_writable: gauge("chutes_gateway_log_writable", "whether the record log can be written")?,
            registry,
        })
    }
}
