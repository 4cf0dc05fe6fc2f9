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
    /// Places in logs of dead processes that cannot be read.
    pub damaged: IntCounter,
    /// Sequences whose finals are missing in a log.
    pub missing: IntCounter,
    /// Times that the disk could not make the log durable.
    pub sync_failures: IntCounter,
    /// Whether the record log can be written (1) or not (0).
    pub writable: IntGauge,
}

impl Record {
    pub(super) fn new(register: Register<'_>) -> prometheus::Result<Self> {
        Ok(Self {
            unconfirmed: register.gauge("chutes_gateway_unconfirmed_records", "records not yet in the database")?,
            dropped: register.counter("chutes_gateway_records_dropped_total", "records that could not be written")?,
            adopted: register.counter("chutes_gateway_logs_adopted_total", "logs of dead processes taken over")?,
            damaged: register.counter("chutes_gateway_log_damaged_total", "unreadable places in logs taken over")?,
            missing: register.counter("chutes_gateway_records_missing_total", "records missing in a log")?,
            sync_failures: register
                .counter("chutes_gateway_log_sync_failures_total", "times the log could not be made durable")?,
            writable: register.gauge("chutes_gateway_log_writable", "whether the record log can be written")?,
        })
    }
}
