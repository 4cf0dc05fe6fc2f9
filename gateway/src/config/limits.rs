//! Settings of what a caller may use.

use clap::Args;

/// What a caller may use.
#[derive(Args)]
pub struct Limits {
    /// Calls per minute and user, also per user and chute, unless overridden.
    #[arg(long, env = "GATEWAY_RATE_PER_MINUTE", default_value = "600")]
    pub rate_per_minute: u32,

    /// Calls at once per user, also per user and chute, unless overridden.
    #[arg(long, env = "GATEWAY_MAX_CONCURRENT", default_value = "128")]
    pub max_concurrent: u32,
}
