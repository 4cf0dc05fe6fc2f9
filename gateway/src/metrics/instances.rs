//! Metrics of instances as this process sees them, and of attempts that are repeated.

use prometheus::{IntCounter, IntCounterVec, IntGaugeVec};

use super::register::Register;
use crate::balance::Census;
use crate::instance::verdict::Reason;

/// Instances and repeated attempts.
pub struct Instances {
    /// Instances by state (averted, open, half_open, slow).
    states: IntGaugeVec,
    /// Times that an instance's breaker opened.
    openings: IntCounter,
    /// Attempts that followed a failed one, by why that failed.
    failovers: IntCounterVec,
    /// Attempts that were not repeated because the budget was spent, by whose (chute, gateway).
    pub retries_refused: IntCounterVec,
}

impl Instances {
    pub(super) fn new(register: Register<'_>) -> prometheus::Result<Self> {
        let failovers =
            register.counters("chutes_gateway_failovers_total", "attempts that followed a failed one", &["reason"])?;
        let retries_refused = register.counters(
            "chutes_gateway_retries_refused_total",
            "attempts not repeated because the budget was spent",
            &["whose"],
        )?;
        // All at once: a rate sees the first event only if the zero before it was there.
        Reason::ALL.iter().for_each(|reason| drop(failovers.with_label_values(&[reason.as_str()])));
        ["chute", "gateway"].iter().for_each(|whose| drop(retries_refused.with_label_values(&[*whose])));
        Ok(Self {
            states: register.gauges("chutes_gateway_instances", "instances by state", &["state"])?,
            openings: register.counter("chutes_gateway_breaker_openings_total", "times that a breaker opened")?,
            failovers,
            retries_refused,
        })
    }

    /// Shows how instances stand.
    pub fn publish(&self, census: Census) {
        let states = [
            ("averted", census.averted),
            ("open", census.open),
            ("half_open", census.half_open),
            ("slow", census.slow),
        ];
        for (state, count) in states {
            self.states.with_label_values(&[state]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        self.openings.inc_by(census.openings.saturating_sub(self.openings.get()));
    }

    /// Counts an attempt that follows one that failed for this reason.
    pub fn count_failover(&self, reason: Reason) {
        self.failovers.with_label_values(&[reason.as_str()]).inc();
    }
}
