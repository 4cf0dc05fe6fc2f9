//! Every metric of the program.

use prometheus::{
    Encoder, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Registry, TextEncoder, histogram_opts, opts,
};

/// The metrics of one control process.
pub struct Metrics {
    registry: Registry,

    // Duties
    /// Runs of a duty by outcome (`ok`, `failed`, `cancelled`).
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
