//! Metrics of the record of calls.

use prometheus::{Gauge, IntCounter, IntGauge};

use super::register::Register;

/// The record of calls.
pub struct Record {
    /// Sequences given out minus sequences confirmed in Postgres.
    pub unconfirmed: IntGauge,
    /// Seconds since the oldest of them was written; 0 if there is none.
    pub oldest_unconfirmed: Gauge,
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
    /// Segments in reserve.
    pub spares: IntGauge,
    /// Bytes that all record logs of this machine take on disk.
    pub bytes: IntGauge,
    /// Bytes that are free on the disk of the log.
    pub free_bytes: IntGauge,
}

impl Record {
    pub(super) fn new(register: Register<'_>) -> prometheus::Result<Self> {
        let gauge = |name: &str, help: &str| register.gauge(name, help);
        Ok(Self {
            unconfirmed: gauge("chutes_gateway_unconfirmed_records", "records not yet in the database")?,
            oldest_unconfirmed: register.float(
                "chutes_gateway_oldest_unconfirmed_seconds",
                "age of the oldest record that is not yet in the database",
            )?,
            dropped: register.counter("chutes_gateway_records_dropped_total", "records that could not be written")?,
            adopted: register.counter("chutes_gateway_logs_adopted_total", "logs of dead processes taken over")?,
            damaged: register.counter("chutes_gateway_log_damaged_total", "unreadable places in logs taken over")?,
            missing: register.counter("chutes_gateway_records_missing_total", "records missing in a log")?,
            sync_failures: register
                .counter("chutes_gateway_log_sync_failures_total", "times the log could not be made durable")?,
            writable: gauge("chutes_gateway_log_writable", "whether the record log can be written")?,
            spares: gauge("chutes_gateway_log_spare_segments", "segments of the record log in reserve")?,
            bytes: gauge("chutes_gateway_log_bytes", "bytes of all record logs of this machine")?,
            free_bytes: gauge("chutes_gateway_log_free_bytes", "bytes free on the disk of the record log")?,
        })
    }
}
