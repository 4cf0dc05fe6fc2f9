//! Settings of the instances' side: addresses, patience, failures and retries.

use std::net::IpAddr;
use std::time::Duration;

use clap::Args;

use super::seconds;

/// Instances: addresses, patience, failures and retries.
#[derive(Args)]
pub struct Instances {
    /// Address that calls to instances leave from.
    #[arg(long, env = "GATEWAY_SOURCE")]
    pub source: Option<IpAddr>,

    /// Time to connect to an instance.
    #[arg(long, env = "GATEWAY_CONNECT_SECONDS", default_value = "5", value_parser = seconds)]
    pub connect: Duration,

    /// Time until the first chunk of an answer, over all attempts of a call.
    #[arg(long, env = "GATEWAY_FIRST_CHUNK_SECONDS", default_value = "600", value_parser = seconds)]
    pub first_chunk: Duration,

    /// Time that one instance has for the first chunk of a stream, while another would take the call.
    #[arg(long, env = "GATEWAY_ATTEMPT_SECONDS", default_value = "60", value_parser = seconds)]
    pub attempt: Duration,

    /// Time between two chunks of an answer.
    #[arg(long, env = "GATEWAY_IDLE_SECONDS", default_value = "300", value_parser = seconds)]
    pub idle: Duration,

    /// Largest answer in one piece, in bytes as it comes, sealed.
    #[arg(long, env = "GATEWAY_MAX_ANSWER", default_value = "67108864")]
    pub max_answer: usize,

    /// How long an instance that fails again and again is left alone before one call tries it; doubled each time that
    /// follows soon.
    #[arg(long, env = "GATEWAY_BREAKER_SECONDS", default_value = "2", value_parser = seconds)]
    pub breaker: Duration,

    /// How long such an instance is left alone at most.
    #[arg(long, env = "GATEWAY_BREAKER_LONGEST_SECONDS", default_value = "60", value_parser = seconds)]
    pub breaker_longest: Duration,

    /// Attempts that may follow a failed one in any 10 seconds; beyond it, a tenth of the calls of those seconds.
    #[arg(long, env = "GATEWAY_RETRY_FLOOR", default_value = "10")]
    pub retry_floor: u32,

    /// How long a connection waits for its next call: less than the 5 s after which an SDK's server closes it.
    #[arg(long, env = "GATEWAY_INSTANCE_KEEP_SECONDS", default_value = "4", value_parser = seconds)]
    pub instance_keep: Duration,

    /// Connections to one instance that wait for their next call.
    #[arg(long, env = "GATEWAY_INSTANCE_KEPT_EACH", default_value = "256")]
    pub instance_kept_each: usize,

    /// Connections to all instances that wait for their next call.
    #[arg(long, env = "GATEWAY_INSTANCE_KEPT", default_value = "4096")]
    pub instance_kept: usize,
}
