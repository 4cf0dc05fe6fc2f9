//! Every metric of the program.

use prometheus::{
    Encoder, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, TextEncoder, histogram_opts,
    opts, register_int_counter_with_registry, register_int_gauge_with_registry,
};

/// The metrics of one control process.
pub struct Metrics {
    registry: Registry,

    // Duties
    /// Runs of a duty by outcome (`ok`, `failed`).
    pub duty_runs: IntCounterVec,
    /// Seconds one run of a duty took.
    pub duty_seconds: HistogramVec,
    /// Whether this process is the one that does the duty.
    pub duty_held: IntGaugeVec,

    // Publishing
    /// Principals written to Redis by kind (`key`, `user`, `hotkey`, `funds`).
    pub principals_published: IntCounterVec,
    /// Times all principals were written because Redis did not have them.
    pub principals_refilled: prometheus::IntCounter,
    /// Changes that wait to be written to Redis.
    pub outbox_waiting: IntGauge,
    /// Version of the newest directory this process published.
    pub directory_version: IntGauge,
    /// Chutes in it.
    pub directory_chutes: IntGauge,
    /// Instances in it.
    pub directory_instances: IntGauge,

    /// What `ingest_usage` and `export_hour` count.
    pub ledger: Ledger,
}

/// Metrics of the record.
pub struct Ledger {
    /// Attempts written to Postgres.
    pub inserted: IntCounter,
    /// Attempts that arrived again and said the same.
    pub repeated: IntCounter,
    /// Attempts that arrived again and said something else; each is an alert.
    pub contradicted: IntCounter,
    /// Usage entries that nobody could read.
    pub rejected: IntCounter,
    /// Files written to the object store.
    pub exports: IntCounter,
    /// Files of closed hours that are not written yet.
    pub exports_missing: IntGauge,
    /// Unix time at which the oldest open hour ends; hours whose files are missing lie before it.
    pub open_hour: IntGauge,
}

impl Metrics {
    /// Registers all metrics in a registry of their own.
    ///
    /// # Errors
    /// When two have the same name.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let metrics = Self {
            duty_runs: IntCounterVec::new(
                opts!("chutes_control_duty_runs_total", "Runs of a duty by outcome"),
                &["duty", "outcome"],
            )?,
            duty_seconds: HistogramVec::new(
                histogram_opts!("chutes_control_duty_seconds", "Seconds one run of a duty took"),
                &["duty"],
            )?,
            duty_held: IntGaugeVec::new(
                opts!("chutes_control_duty_held", "Whether this process is the one that does the duty"),
                &["duty"],
            )?,
            principals_published: IntCounterVec::new(
                opts!("chutes_control_principals_published_total", "Principals written to Redis by kind"),
                &["kind"],
            )?,
            principals_refilled: prometheus::IntCounter::new(
                "chutes_control_principals_refilled_total",
                "Times all principals were written because Redis did not have them",
            )?,
            outbox_waiting: IntGauge::new("chutes_control_outbox_waiting", "Changes that wait to be written to Redis")?,
            directory_version: IntGauge::new(
                "chutes_control_directory_version",
                "Version of the newest directory this process published",
            )?,
            directory_chutes: IntGauge::new("chutes_control_directory_chutes", "Chutes in the published directory")?,
            directory_instances: IntGauge::new(
                "chutes_control_directory_instances",
                "Instances in the published directory",
            )?,
            ledger: Ledger::new(&registry)?,
            registry,
        };
        metrics.register()?;
        Ok(metrics)
    }

    fn register(&self) -> prometheus::Result<()> {
        self.registry.register(Box::new(self.duty_runs.clone()))?;
        self.registry.register(Box::new(self.duty_seconds.clone()))?;
        self.registry.register(Box::new(self.duty_held.clone()))?;
        self.registry.register(Box::new(self.principals_published.clone()))?;
        self.registry.register(Box::new(self.principals_refilled.clone()))?;
        self.registry.register(Box::new(self.outbox_waiting.clone()))?;
        self.registry.register(Box::new(self.directory_version.clone()))?;
        self.registry.register(Box::new(self.directory_chutes.clone()))?;
        self.registry.register(Box::new(self.directory_instances.clone()))?;
        Ok(())
    }

    /// All metrics as Prometheus reads them.
    ///
    /// # Errors
    /// When a metric has no name, which registering excludes.
    pub fn to_text(&self) -> prometheus::Result<String> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        String::from_utf8(text).map_err(|error| prometheus::Error::Msg(error.to_string()))
    }
}

impl Ledger {
    fn new(registry: &Registry) -> prometheus::Result<Self> {
        let counter = |name: &str, help: &str| register_int_counter_with_registry!(name, help, registry);
        Ok(Self {
            inserted: counter("chutes_control_usage_inserted_total", "Attempts written to Postgres")?,
            repeated: counter("chutes_control_usage_repeated_total", "Attempts that arrived again and said the same")?,
            contradicted: counter(
                "chutes_control_usage_contradicted_total",
                "Attempts that arrived again and said something else",
            )?,
            rejected: counter("chutes_control_usage_rejected_total", "Usage entries that nobody could read")?,
            exports: counter("chutes_control_exports_written_total", "Files written to the object store")?,
            exports_missing: register_int_gauge_with_registry!(
                "chutes_control_exports_missing",
                "Files of closed hours that are not written yet",
                registry
            )?,
            open_hour: register_int_gauge_with_registry!(
                "chutes_control_export_open_hour_timestamp_seconds",
                "Unix time at which the oldest open hour ends",
                registry
            )?,
        })
    }
}
