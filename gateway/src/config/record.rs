//! Settings of the record log.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::seconds;

/// The record log.
#[derive(Args)]
pub struct Record {
    /// Folder of the record logs of all gateways of this machine.
    #[arg(long = "log-folder", env = "GATEWAY_LOG_FOLDER")]
    pub folder: PathBuf,

    /// Size of one log segment in bytes.
    #[arg(long = "log-segment", env = "GATEWAY_LOG_SEGMENT", default_value = "16777216")]
    pub segment: u64,

    /// How long confirmed segments stay.
    #[arg(long = "log-keep", env = "GATEWAY_LOG_KEEP_SECONDS", default_value = "86400", value_parser = seconds)]
    pub keep: Duration,

    /// Calls in flight at once in this process.
    #[arg(long, env = "GATEWAY_MAX_CALLS", default_value = "16384")]
    pub max_calls: usize,
}
