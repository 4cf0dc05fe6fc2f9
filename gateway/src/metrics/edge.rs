//! Metrics of the edge itself: connections, what it refused unread, memory and processor.

use prometheus::{Gauge, IntCounter, IntCounterVec, IntGauge};

use super::register::Register;

/// Why the edge refused a connection or a request without asking who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// As many connections are open as there may be.
    Connections,
    /// As many connections of one address are open as it may have.
    ConnectionsOfAddress,
    /// No memory for another connection.
    ConnectionMemory,
    /// A request head did not arrive in time.
    SlowHead,
    /// A request head has too many bytes or fields.
    LargeHead,
    /// A client reset too many streams.
    Resets,
    /// A client fell silent while a service waited for its body.
    SilentBody,
    /// As many requests are in the hands of services as there may be.
    Forwarded,
    /// As many requests of one address are in the hands of services as it may have.
    ForwardedOfAddress,
    /// No memory for another call.
    CallMemory,
    /// No processor time for another call.
    CallLag,
}

impl Refused {
    /// Every reason.
    const ALL: [Self; 11] = [
        Self::Connections,
        Self::ConnectionsOfAddress,
        Self::ConnectionMemory,
        Self::SlowHead,
        Self::LargeHead,
        Self::Resets,
        Self::SilentBody,
        Self::Forwarded,
        Self::ForwardedOfAddress,
        Self::CallMemory,
        Self::CallLag,
    ];

    /// The word that is counted by.
    fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::ConnectionsOfAddress => "connections_of_address",
            Self::ConnectionMemory => "connection_memory",
            Self::SlowHead => "slow_head",
            Self::LargeHead => "large_head",
            Self::Resets => "resets",
            Self::SilentBody => "silent_body",
            Self::Forwarded => "forwarded",
            Self::ForwardedOfAddress => "forwarded_of_address",
            Self::CallMemory => "call_memory",
            Self::CallLag => "call_lag",
        }
    }
}

/// The edge itself.
pub struct Edge {
    /// Open connections of clients.
    pub connections: IntGauge,
    /// Requests and sockets in the hands of services.
    pub forwarded: IntGauge,
    /// Bytes of memory in use.
    pub memory_used: IntGauge,
    /// Bytes of memory that may be in use.
    pub memory_budget: IntGauge,
    /// How long work waits for the processor, as seen last.
    pub lag: Gauge,
    refused: IntCounterVec,
}

impl Edge {
    pub(super) fn new(register: Register<'_>) -> prometheus::Result<Self> {
        let refused = register.counters(
            "chutes_gateway_refused_total",
            "connections and requests refused before anybody asked who it is",
            &["reason"],
        )?;
        // All at once: a rate sees the first refusal only if the zero before it was there.
        for reason in Refused::ALL {
            refused.with_label_values(&[reason.as_str()]);
        }
        Ok(Self {
            connections: register.gauge("chutes_gateway_connections", "open connections of clients")?,
            forwarded: register.gauge("chutes_gateway_forwarded", "requests and sockets in the hands of services")?,
            memory_used: register.gauge("chutes_gateway_memory_used_bytes", "memory in use")?,
            memory_budget: register.gauge("chutes_gateway_memory_budget_bytes", "memory that may be in use")?,
            lag: register.float("chutes_gateway_lag_seconds", "how long work waits for the processor")?,
            refused,
        })
    }

    /// The counter of one reason.
    #[must_use]
    pub fn refused(&self, reason: Refused) -> IntCounter {
        self.refused.with_label_values(&[reason.as_str()])
    }
}
