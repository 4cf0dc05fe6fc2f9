//! Metrics of limits that gateways share.

use std::time::Duration;

use prometheus::{Gauge, Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, exponential_buckets};

use super::register::Register;

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// A caller's calls per minute and at once.
    Caller,
    /// A caller's calls per day.
    Quota,
    /// Calls on an instance.
    Instance,
}

/// Limits that gateways share.
pub struct Limits {
    /// Decisions by limit and by way: `local`, or `asked` when the call waited for Redis.
    pub decisions: IntCounterVec,
    /// The same, found without a look at their labels.
    by_decision: [[IntCounter; 2]; 3],
    /// Questions to Redis by outcome (answered, failed).
    pub questions: IntCounterVec,
    /// Seconds until a question was answered.
    pub answered: Histogram,
    /// Slots in use here by limit.
    pub used: IntGaugeVec,
    /// Slots kept ready here by limit.
    pub ready: IntGaugeVec,
    /// Whether Redis gives out slots (1) or gateways keep to their share (0).
    pub shared: IntGauge,
    /// Gateways alive when Redis was last heard.
    pub gateways: IntGauge,
    /// By which part of a limit all gateways together may exceed it: 0 while Redis gives out slots.
    pub bound: Gauge,
}

impl Limits {
    pub(super) fn new(register: Register<'_>) -> prometheus::Result<Self> {
        let by_limit = |name: &str, help: &str| register.gauges(name, help, &["limit"]);
        let decisions = "chutes_gateway_limit_decisions_total";
        let questions = "chutes_gateway_lease_questions_total";
        let answered = "chutes_gateway_lease_answer_seconds";
        let decisions = register.counters(decisions, "decisions by limit and way", &["limit", "way"])?;
        let by_way = |limit: Limit| ["local", "asked"].map(|way| decisions.with_label_values(&[limit.name(), way]));
        let asked = register.counters(questions, "questions to redis by outcome", &["outcome"])?;
        // All at once: a rate sees the first question only if the zero before it was there.
        ["answered", "failed"].iter().for_each(|outcome| drop(asked.with_label_values(&[*outcome])));
        Ok(Self {
            by_decision: [Limit::Caller, Limit::Quota, Limit::Instance].map(by_way),
            decisions,
            questions: asked,
            answered: register.histogram(answered, "seconds to an answer", exponential_buckets(0.0001, 2.0, 14)?)?,
            used: by_limit("chutes_gateway_lease_used_slots", "slots in use")?,
            ready: by_limit("chutes_gateway_lease_ready_slots", "slots kept ready")?,
            shared: register.gauge("chutes_gateway_lease_redis", "whether redis gives out slots")?,
            gateways: register.gauge("chutes_gateway_lease_gateways", "gateways alive")?,
            bound: register.float(
                "chutes_gateway_lease_bound_ratio",
                "part of a limit that may come on top of it, rounded up to a slot for each other gateway",
            )?,
        })
    }

    /// Counts a decision.
    pub fn count_decision(&self, limit: Limit, asked: bool) {
        self.by_decision[limit as usize][usize::from(asked)].inc();
    }

    /// Counts a question and notes how long it took.
    pub fn count_asked(&self, answered: bool, took: Duration) {
        self.questions.with_label_values(&[if answered { "answered" } else { "failed" }]).inc();
        if answered {
            self.answered.observe(took.as_secs_f64());
        }
    }

    /// Notes what is held.
    pub fn set_slots(&self, limit: Limit, used: u64, ready: u64) {
        let number = |slots| i64::try_from(slots).unwrap_or(i64::MAX);
        self.used.with_label_values(&[limit.name()]).set(number(used));
        self.ready.with_label_values(&[limit.name()]).set(number(ready));
    }

    /// Notes whether Redis gives out slots, and how many gateways there are.
    pub fn set_state(&self, shared: bool, gateways: u32) {
        self.shared.set(i64::from(shared));
        self.gateways.set(i64::from(gateways));
        let others = f64::from(gateways.saturating_sub(1));
        self.bound.set(if shared { 0.0 } else { others / f64::from(gateways.max(1)) });
    }
}

impl Limit {
    fn name(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Quota => "quota",
            Self::Instance => "instance",
        }
    }
}
