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

    /// How long the answer to a call with an `Idempotency-Key` is kept for whoever repeats it.
    #[arg(long, env = "GATEWAY_IDEMPOTENT_SECONDS", default_value = "600", value_parser = seconds)]
    pub idempotent: Duration,

    /// Largest answer in bytes that is kept; an image of 1024 by 1024 points fits whatever it shows.
    #[arg(long, env = "GATEWAY_IDEMPOTENT_ANSWER", default_value = "6291456")]
    pub idempotent_answer: usize,

    /// Bytes of all answers of this process that are kept, an eighth of them at most for one user. Large ones that are
    /// given again take at most half as many beside that.
    #[arg(long, env = "GATEWAY_IDEMPOTENT_ANSWERS", default_value = "536870912")]
    pub idempotent_answers: usize,

    /// How long a call with an `Idempotency-Key` goes on without its client.
    #[arg(long, env = "GATEWAY_IDEMPOTENT_RUN_ON_SECONDS", default_value = "300", value_parser = seconds)]
    pub idempotent_run_on: Duration,

    /// How long a call with an `Idempotency-Key` is taken to run after its gateway was last heard of.
    #[arg(long, env = "GATEWAY_IDEMPOTENT_CLAIM_SECONDS", default_value = "60", value_parser = seconds)]
    pub idempotent_claim: Duration,
}
