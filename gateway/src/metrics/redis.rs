//! Metrics of the connections to Redis.

use prometheus::IntGauge;

use super::register::Register;

/// Whether each connection is alive (1) or not (0).
pub struct Redis {
    /// That by which the directory is followed.
    pub directory: IntGauge,
    /// That by which principals are followed.
    pub principals: IntGauge,
    /// That by which records are shipped.
    pub usage: IntGauge,
}

impl Redis {
    pub(super) fn new(register: Register<'_>) -> prometheus::Result<Self> {
        let connected =
            register.gauges("chutes_gateway_redis_connected", "whether a connection to redis is alive", &["use"])?;
        Ok(Self {
            directory: connected.with_label_values(&["directory"]),
            principals: connected.with_label_values(&["principals"]),
            usage: connected.with_label_values(&["usage"]),
        })
    }
}
