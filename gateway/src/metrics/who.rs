//! Metrics of what the edge knows: which chutes there are, and who may call them.

use prometheus::{IntCounter, IntCounterVec, IntGauge};

use super::register::Register;

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
    /// Whether the principal connection to Redis is alive (1) or not (0).
    pub principals_connected: IntGauge,
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
        Ok(Self {
            directory_version: gauge("chutes_gateway_directory_version", "version of the directory in force")?,
            directory_made_at: gauge("chutes_gateway_directory_made_at_seconds", "when the directory was made")?,
            directory_seen_at: gauge("chutes_gateway_directory_seen_at_seconds", "when redis last confirmed it")?,
            directory_unopened: gauge("chutes_gateway_directory_unopened_instances", "instances left out")?,
            directory_refused: register.counters(refused, "snapshots refused", &["reason"])?,
            principals_connected: gauge("chutes_gateway_principals_connected", "whether principals are followed")?,
            principals_refused: counter("chutes_gateway_principals_refused_total", "principal sets refused")?,
            principals_looked_up: counter("chutes_gateway_principals_looked_up_total", "questions put to control")?,
            principals_held: gauge("chutes_gateway_principals_held", "principals in memory")?,
        })
    }
}
