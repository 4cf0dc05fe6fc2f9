//! Metrics of attempts: what their records say in the end, and why some failed.

use prometheus::{IntCounter, IntCounterVec, IntGauge};
use protocol::usage::{Outcome, Record};

use super::register::Register;
use crate::instance::verdict::{Reason, Verdict};

/// Attempts on instances.
pub struct Attempts {
    pub(super) in_flight: IntGauge,
    finished: IntCounter,
    failed: IntCounter,
    aborted: IntCounter,
    lost: IntCounter,
    failures: IntCounterVec,
    prompt_tokens: IntCounter,
    completion_tokens: IntCounter,
}

impl Attempts {
    pub(super) fn new(register: Register<'_>) -> prometheus::Result<Self> {
        let ended =
            register.counters("chutes_gateway_attempts_total", "attempts that ended, by outcome", &["outcome"])?;
        let ended = |label: &str| ended.with_label_values(&[label]);
        let failures = register.counters(
            "chutes_gateway_failures_total",
            "failed attempts by reason and whose fault it is",
            &["reason", "blame"],
        )?;
        // All at once: a rate sees the first failure of a kind only if the zero before it was there.
        for reason in Reason::ALL {
            failures.with_label_values(&[reason.as_str(), reason.blame().as_str()]);
        }
        let tokens = register.counters("chutes_gateway_tokens_total", "tokens of recorded attempts", &["direction"])?;
        Ok(Self {
            in_flight: register.gauge("chutes_gateway_attempts_in_flight", "attempts that have no end yet")?,
            finished: ended("finished"),
            failed: ended("failed"),
            aborted: ended("aborted"),
            lost: ended("lost"),
            failures,
            prompt_tokens: tokens.with_label_values(&["prompt"]),
            completion_tokens: tokens.with_label_values(&["completion"]),
        })
    }

    /// Counts why an attempt failed.
    pub fn count_failure(&self, verdict: &Verdict) {
        self.failures.with_label_values(&[verdict.reason.as_str(), verdict.blame.as_str()]).inc();
    }

    /// Counts an attempt whose record is written.
    pub(super) fn count(&self, record: &Record) {
        let ended = match record.outcome {
            Outcome::Finished => &self.finished,
            Outcome::Failed => &self.failed,
            Outcome::Aborted => &self.aborted,
            Outcome::Lost => &self.lost,
        };
        ended.inc();
        self.prompt_tokens.inc_by(record.facts.it);
        self.completion_tokens.inc_by(record.facts.ot);
    }
}
