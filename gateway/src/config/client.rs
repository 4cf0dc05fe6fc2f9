//! Settings of the clients' side: bodies and patience.

use std::net::IpAddr;
use std::time::Duration;

use clap::Args;

use super::seconds;

/// Clients: bodies and patience.
#[derive(Args)]
pub struct Client {
    /// Largest request body in bytes.
    #[arg(long, env = "GATEWAY_MAX_BODY", default_value = "33554432")]
    pub max_body: usize,

    /// Bytes of all request bodies in memory together.
    #[arg(long, env = "GATEWAY_MAX_BODIES", default_value = "1073741824")]
    pub max_bodies: usize,

    /// How long a client may be silent while it sends its body.
    #[arg(long, env = "GATEWAY_CLIENT_SILENCE_SECONDS", default_value = "30", value_parser = seconds)]
    pub client_silence: Duration,

    /// How long the whole body of a call may take to arrive.
    #[arg(long, env = "GATEWAY_BODY_SECONDS", default_value = "300", value_parser = seconds)]
    pub body_seconds: Duration,

    /// How long a client may take nothing of what it is sent.
    #[arg(long, env = "GATEWAY_CLIENT_STALL_SECONDS", default_value = "60", value_parser = seconds)]
    pub client_stall: Duration,

    /// Peers whose `X-Forwarded-For` is believed; repeatable.
    #[arg(long, env = "GATEWAY_TRUSTED_PEERS", value_delimiter = ',')]
    pub trusted_peers: Vec<IpAddr>,

    /// How long a stopping gateway waits for calls in flight.
    #[arg(long, env = "GATEWAY_DRAIN_SECONDS", default_value = "120", value_parser = seconds)]
    pub drain: Duration,
}
