//! Settings of how calls are answered.

use std::time::Duration;

use clap::Args;

use super::seconds;

/// How calls are answered.
#[derive(Args)]
pub struct Calls {
    /// Silence in an event stream after which its client gets a comment; 0 means never.
    #[arg(long, env = "GATEWAY_KEEPALIVE_SECONDS", default_value = "15", value_parser = seconds)]
    pub keepalive: Duration,

    /// Answered prompts that are remembered, to mark calls that ask the same once more; 0 means none.
    #[arg(long, env = "GATEWAY_REROLLS", default_value = "100000")]
    pub rerolls: usize,

    /// How long an answered prompt is remembered.
    #[arg(long, env = "GATEWAY_REROLL_SECONDS", default_value = "1200", value_parser = seconds)]
    pub reroll: Duration,
}
