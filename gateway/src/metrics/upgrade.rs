//! Metrics of the change from one gateway process to the next.

use prometheus::IntCounter;

use super::register::Register;

/// The change from one process to the next.
pub struct Upgrade {
    /// Hand-overs that failed, so that this process went on.
    pub failed: IntCounter,
}

impl Upgrade {
    pub(super) fn new(register: Register<'_>) -> prometheus::Result<Self> {
        Ok(Self { failed: register.counter("chutes_gateway_handovers_failed_total", "hand-overs that failed")? })
    }
}
