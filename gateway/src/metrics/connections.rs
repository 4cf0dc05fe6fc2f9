//! Metrics of connections to instances.

use prometheus::{IntCounterVec, IntGauge};

use super::register::Register;

/// Connections to instances.
pub struct Connections {
    /// Requests by the connection they went over: `opened` for them, `kept` from an earlier one, or `reopened` because
    /// the other side had closed the kept one.
    pub requests: IntCounterVec,
    /// Connections that wait for their next call.
    pub waiting: IntGauge,
}

/// The connection a request went over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// One that was opened for it.
    Opened,
    /// One that was kept from an earlier request.
    Kept,
    /// One that was opened for it because the other side had closed the kept one.
    Reopened,
}

impl Connections {
    pub(super) fn new(register: Register<'_>) -> prometheus::Result<Self> {
        let (requests, waiting) =
            ("chutes_gateway_instance_requests_total", "chutes_gateway_instance_connections_waiting");
        Ok(Self {
            requests: register.counters(requests, "requests to instances by connection", &["connection"])?,
            waiting: register.gauge(waiting, "connections that wait for their next call")?,
        })
    }

    /// Counts a request that was sent.
    pub fn count(&self, over: Over) {
        let connection = match over {
            Over::Opened => "opened",
            Over::Kept => "kept",
            Over::Reopened => "reopened",
        };
        self.requests.with_label_values(&[connection]).inc();
    }
}
