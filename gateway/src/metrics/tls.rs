//! Metrics of TLS: handshakes and certificates.

use prometheus::{IntCounter, IntGauge};

use super::register::Register;

/// TLS; clones share it.
#[derive(Clone, Debug)]
pub struct Tls {
    /// Handshakes that were completed.
    pub handshakes: IntCounter,
    /// Unix time at which the first of the loaded certificates expires.
    pub expires_at: IntGauge,
}

impl Tls {
    pub(super) fn new(register: Register<'_>) -> prometheus::Result<Self> {
        Ok(Self {
            handshakes: register.counter("chutes_gateway_tls_handshakes_total", "completed TLS handshakes")?,
            expires_at: register.gauge(
                "chutes_gateway_certificate_expiry_timestamp_seconds",
                "when the first of the loaded certificates expires",
            )?,
        })
    }
}
