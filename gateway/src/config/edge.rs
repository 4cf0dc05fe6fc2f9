//! Settings of the edge itself: what one connection, one address and all clients together may take.

use std::time::Duration;

use clap::Args;

use super::seconds;
use crate::edge::Largest;

/// The edge: connections, heads, memory, processor.
#[derive(Args)]
pub struct Edge {
    /// Streams at once on one HTTP/2 connection.
    #[arg(long, env = "GATEWAY_HTTP2_STREAMS", default_value = "100")]
    pub http2_streams: u32,

    /// Streams that a client may reset on one HTTP/2 connection before it is asked to open another.
    #[arg(long, env = "GATEWAY_HTTP2_RESETS", default_value = "1000")]
    pub http2_resets: usize,

    /// Bytes that a client may send ahead on one HTTP/2 stream.
    #[arg(long, env = "GATEWAY_HTTP2_STREAM_WINDOW", default_value = "65536", value_parser = window())]
    pub http2_stream_window: u32,

    /// Bytes that a client may send ahead on one HTTP/2 connection.
    #[arg(long, env = "GATEWAY_HTTP2_CONNECTION_WINDOW", default_value = "1048576", value_parser = window())]
    pub http2_connection_window: u32,

    /// Largest request head in bytes.
    #[arg(long, env = "GATEWAY_MAX_HEAD", default_value = "32768")]
    pub max_head: u32,

    /// Most fields of a request head.
    #[arg(long, env = "GATEWAY_MAX_FIELDS", default_value = "100")]
    pub max_fields: usize,

    /// How long a request head may take to arrive, however it trickles.
    #[arg(long, env = "GATEWAY_HEAD_SECONDS", default_value = "10", value_parser = seconds)]
    pub head_within: Duration,

    /// Whole seconds that a connection without a request stays open.
    #[arg(
        long,
        env = "GATEWAY_KEEP_ALIVE_SECONDS",
        default_value = "60",
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    pub keep_alive: u64,

    /// Open connections of clients.
    #[arg(long, env = "GATEWAY_MAX_CONNECTIONS", default_value = "16384")]
    pub max_connections: usize,

    /// Open connections of one address, or of one /64 of IPv6; trusted peers have only the limit of all.
    #[arg(long, env = "GATEWAY_MAX_CONNECTIONS_PER_ADDRESS", default_value = "1024")]
    pub max_connections_per_address: usize,

    /// Requests and sockets in the hands of our own services.
    #[arg(long, env = "GATEWAY_MAX_FORWARDED", default_value = "16384")]
    pub max_forwarded: usize,

    /// Requests and sockets of one client, or of one /64 of IPv6, in the hands of our own services.
    #[arg(long, env = "GATEWAY_MAX_FORWARDED_PER_ADDRESS", default_value = "1024")]
    pub max_forwarded_per_address: usize,

    /// Bytes of memory that this process may take; 0 means the limit of its control group, else the machine's memory.
    #[arg(long, env = "GATEWAY_MEMORY_BUDGET", default_value = "0")]
    pub memory_budget: u64,

    /// Percent of the memory budget from which new calls are refused.
    #[arg(long, env = "GATEWAY_MEMORY_NO_CALLS", default_value = "95", value_parser = percent())]
    pub memory_no_calls: u8,

    /// Percent of the memory budget from which new connections are refused.
    #[arg(long, env = "GATEWAY_MEMORY_NO_CONNECTIONS", default_value = "98", value_parser = percent())]
    pub memory_no_connections: u8,

    /// How long work may wait for the processor, all the time, before new calls are refused.
    #[arg(long, env = "GATEWAY_MAX_LAG_SECONDS", default_value = "0.5", value_parser = seconds)]
    pub max_lag: Duration,
}

impl Edge {
    /// The largest request head.
    #[must_use]
    pub fn largest(&self) -> Largest {
        Largest { bytes: self.max_head as usize, fields: self.max_fields }
    }
}

/// What a flow-control window may be.
fn window() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=i64::from(i32::MAX))
}

fn percent() -> clap::builder::RangedI64ValueParser<u8> {
    clap::value_parser!(u8).range(1..=100)
}
