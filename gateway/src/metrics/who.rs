//! Metrics of what the edge knows: which chutes there are, and who may call them.

use prometheus::{IntCounter, IntCounterVec, IntGauge};
use protocol::directory::Refused;

use super::register::Register;

/// Reason of a snapshot that is not there.
pub const MISSING: &str = "missing";

/// What the edge knows.
pub struct Who {
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
    /// Chutes in the directory in force.
    pub directory_chutes: IntGauge,
    /// Instances in the directory in force.
    pub directory_instances: IntGauge,
    /// Unix time up to which every change of a principal is known.
    pub principals_seen_at: IntGauge,
    /// Principal sets refused because they were too small, older, or unreadable.
    pub principals_refused: IntCounter,
    /// Questions put to control because Redis did not hold all principals.
    pub principals_looked_up: IntCounter,
    /// Principals in memory.
    pub principals_held: IntGauge,
}

impl Who {
    pub(super) fn new(register: Register<'_>) -> prometheus::Result<Self> {
        let gauge = |name: &str, help: &str| register.gauge(name, help);
        let counter = |name: &str, help: &str| register.counter(name, help);
        let refused = "chutes_gateway_directory_refused_total";
        let refused = register.counters(refused, "snapshots refused", &["reason"])?;
        // All at once: a rate sees the first refusal only if the zero before it was there.
        for reason in Refused::LABELS.into_iter().chain([MISSING]) {
            refused.with_label_values(&[reason]);
        }
        Ok(Self {
            directory_version: gauge("chutes_gateway_directory_version", "version of the directory in force")?,
            directory_made_at: gauge("chutes_gateway_directory_made_timestamp_seconds", "when the directory was made")?,
            directory_seen_at: gauge(
                "chutes_gateway_directory_seen_timestamp_seconds",
                "when redis last confirmed it",
            )?,
            directory_unopened: gauge("chutes_gateway_directory_unopened_instances", "instances left out")?,
            directory_refused: refused,
            directory_chutes: gauge("chutes_gateway_directory_chutes", "chutes in the directory in force")?,
            directory_instances: gauge("chutes_gateway_directory_instances", "instances in the directory in force")?,
            principals_seen_at: gauge(
                "chutes_gateway_principals_seen_timestamp_seconds",
                "when redis last confirmed them",
            )?,
            principals_refused: counter("chutes_gateway_principals_refused_total", "principal sets refused")?,
            principals_looked_up: counter("chutes_gateway_principals_looked_up_total", "questions put to control")?,
            principals_held: gauge("chutes_gateway_principals_held", "principals in memory")?,
        })
    }
}
