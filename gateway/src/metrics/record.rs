//! Metrics of the record of calls.

use prometheus::{IntCounter, IntGauge};

use super::register::Register;

/// The record of calls.
pub struct Record {
    /// Sequences given out minus sequences confirmed in Postgres.
    pub unconfirmed: IntGauge,
    /// Finals that could not be written anywhere.
    pub dropped: IntCounter,
    /// Log directories of dead processes taken over.
    pub adopted: IntCounter,
    /// Whether the record log can be written (1) or not (0).
    pub writable: IntGauge,
}

impl Record {
    pub(super) fn new(register: Register<'_>) -> prometheus::Result<Self> {
        Ok(Self {
            unconfirmed: register.gauge("chutes_gateway_unconfirmed_records", "records not yet in the database")?,
            dropped: register.counter("chutes_gateway_records_dropped_total", "records that could not be written")?,
            adopted: register.counter("chutes_gateway_logs_adopted_total", "logs of dead processes taken over")?,
            writable: register.gauge("chutes_gateway_log_writable", "whether the record log can be written")?,
        })
    }
}
