//! Writes the program's log to standard error.

use tracing_subscriber::EnvFilter;

/// What the framework may say: its errors name client addresses and whole request lines.
const FRAMEWORK: [&str; 4] =
    ["pingora_core=warn", "pingora_core::services=off", "pingora_core::apps=off", "pingora_proxy=off"];

/// Starts the log with the operator's filter.
///
/// # Errors
/// When the filter cannot be read or a log was started before.
pub fn start(filter: &str, json: bool) -> anyhow::Result<()> {
    let mut filter = EnvFilter::try_new(filter)?;
    for directive in FRAMEWORK {
        filter = filter.add_directive(directive.parse()?);
    }
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = if json { log.json().try_init() } else { log.try_init() };
    started.map_err(|error| anyhow::anyhow!("cannot start the log: {error}"))
}
