//! Where log messages go.

use anyhow::Context;
use tracing_subscriber::EnvFilter;

/// Sends log messages that pass the filter to standard error.
///
/// # Errors
/// When the filter cannot be read or logging is set up already.
pub fn install(filter: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter).context("reading the log filter")?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .try_init()
        .map_err(|error| anyhow::anyhow!("setting up logs: {error}"))
}
