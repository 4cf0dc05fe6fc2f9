//! Every setting of the program, typed and documented; read once, before any port is opened.

mod calls;
mod client;
mod edge;
mod instances;
mod limits;
mod record;
mod upgrade;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

pub use self::calls::Calls;
pub use self::client::Client;
pub use self::edge::Edge;
pub use self::instances::Instances;
pub use self::limits::Limits;
pub use self::record::Record;
pub use self::upgrade::Upgrade;

/// The edge: TLS, who, how much, where to, stream, record.
#[derive(Parser)]
#[command(name = "gateway", version)]
pub struct Config {
    /// Domain whose labels are hosts, for example `chutes.localhost`.
    #[arg(long, env = "GATEWAY_DOMAIN")]
    pub domain: String,

    /// Addresses that speak TLS; repeatable.
    #[arg(long, env = "GATEWAY_HTTPS", value_delimiter = ',', default_value = "127.0.0.1:8443")]
    pub https: Vec<SocketAddr>,

    /// Addresses that speak plain HTTP, for use behind a balancer; repeatable.
    #[arg(long, env = "GATEWAY_HTTP", value_delimiter = ',')]
    pub http: Vec<SocketAddr>,

    /// Address of metrics, health and the operator's look-ups.
    #[arg(long, env = "GATEWAY_INTERNAL", default_value = "127.0.0.1:8481")]
    pub internal: SocketAddr,

    /// Folder of certificates: `{name}.crt` and `{name}.key` in PEM; the wildcard is `_.{domain}`.
    #[arg(long, env = "GATEWAY_CERTIFICATES")]
    pub certificates: PathBuf,

    /// Redis, with the gateway's own ACL user.
    #[arg(long, env = "GATEWAY_REDIS_URL", hide_env_values = true)]
    pub redis_url: String,

    /// Where the `api.` host is served.
    #[arg(long, env = "GATEWAY_API_UPSTREAM")]
    pub api_upstream: SocketAddr,

    /// Where the `registry.` host is served; without it the host answers 503.
    #[arg(long, env = "GATEWAY_REGISTRY_UPSTREAM")]
    pub registry_upstream: Option<SocketAddr>,

    /// Where the `ws.` host is served; without it the host answers 503.
    #[arg(long, env = "GATEWAY_WS_UPSTREAM")]
    pub ws_upstream: Option<SocketAddr>,

    /// Where the `events.` host is served; without it the host answers 503.
    #[arg(long, env = "GATEWAY_EVENTS_UPSTREAM")]
    pub events_upstream: Option<SocketAddr>,

    /// Control's internal listener, asked for principals while Redis does not hold all of them.
    #[arg(long, env = "GATEWAY_CONTROL_URL")]
    pub control_url: String,

    /// Credential of the internal listeners.
    #[arg(long, env = "INTERNAL_CREDENTIAL", hide_env_values = true)]
    pub internal_credential: Secret,

    /// Key under which instance keys are sealed in the directory: 64 hex digits.
    #[arg(long, env = "DIRECTORY_KEY", hide_env_values = true)]
    pub directory_key: Secret,

    /// Seed of the call key that signs requests to instances: 64 hex digits.
    #[arg(long, env = "CALL_KEY_SEED", hide_env_values = true)]
    pub call_key_seed: Secret,

    /// Public key of user sessions: 64 hex digits.
    #[arg(long, env = "SESSION_PUBLIC_KEY")]
    pub session_public_key: String,

    /// How long principals serve while Redis cannot be reached.
    #[arg(long, env = "GATEWAY_STALE_AFTER", default_value = "30", value_parser = seconds)]
    pub stale_after: Duration,

    /// Principals kept in memory.
    #[arg(long, env = "GATEWAY_PRINCIPALS", default_value = "200000")]
    pub principals: usize,

    /// The clients' side.
    #[command(flatten)]
    pub client: Client,

    /// How calls are answered.
    #[command(flatten)]
    pub calls: Calls,

    /// The edge itself.
    #[command(flatten)]
    pub edge: Edge,

    /// The instances' side.
    #[command(flatten)]
    pub instances: Instances,

    /// What a caller may use.
    #[command(flatten)]
    pub limits: Limits,

    /// The record log.
    #[command(flatten)]
    pub record: Record,

    /// The change from one process to the next.
    #[command(flatten)]
    pub upgrade: Upgrade,

    /// What is logged, as directives of `tracing`.
    #[arg(long, env = "GATEWAY_LOG", default_value = "info")]
    pub log: String,

    /// Whether the log is JSON, one object per line.
    #[arg(long, env = "GATEWAY_LOG_JSON")]
    pub log_json: bool,

    /// Worker threads; 0 means one per core.
    #[arg(long, env = "GATEWAY_THREADS", default_value = "0")]
    pub threads: usize,

    /// Seconds added to the clock, to close an hour in a test.
    #[cfg(debug_assertions)]
    #[arg(long, default_value = "0", allow_negative_numbers = true)]
    pub clock_offset: i64,
}

/// A setting that is never shown.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// The text, for its one use.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for Secret {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() { Err("a secret must not be empty") } else { Ok(Self(text.to_owned())) }
    }
}

/// Reads a number of seconds, fractions allowed.
fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 = text.parse().map_err(|_| format!("{text:?} is not a number of seconds"))?;
    Duration::try_from_secs_f64(number).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn only_a_debug_build_can_be_told_another_time() {
        let command = Config::command();
        let offers = command.get_arguments().any(|argument| argument.get_long() == Some("clock-offset"));
        assert_eq!(offers, cfg!(debug_assertions));
    }

    #[test]
    fn the_edge_is_bounded_although_nobody_sets_a_bound() {
        let digits = "11".repeat(32);
        let named = [
            ("--domain", "chutes.localhost"),
            ("--certificates", "certificates"),
            ("--log-folder", "log"),
            ("--redis-url", "redis://localhost"),
            ("--control-url", "http://localhost"),
            ("--api-upstream", "127.0.0.1:1"),
            ("--internal-credential", "internal"),
            ("--directory-key", &digits),
            ("--call-key-seed", &digits),
            ("--session-public-key", &digits),
        ];
        let words = named.into_iter().flat_map(|(name, value)| [name, value]);
        let config = Config::try_parse_from(["gateway"].into_iter().chain(words)).ok().unwrap();
        let edge = &config.edge;
        assert_eq!((edge.http2_streams, edge.http2_resets), (100, 1000));
        assert_eq!((edge.http2_stream_window, edge.http2_connection_window), (64 << 10, 1 << 20));
        assert_eq!((edge.max_head, edge.max_fields), (32 << 10, 100));
        assert_eq!((edge.head_within, edge.keep_alive), (Duration::from_secs(10), 60));
        assert_eq!((edge.max_connections, edge.max_connections_per_address), (16_384, 1024));
        assert_eq!((edge.max_forwarded, edge.max_forwarded_per_address), (16_384, 1024));
        assert_eq!((edge.memory_budget, edge.memory_no_calls, edge.memory_no_connections), (0, 95, 98));
        assert_eq!(edge.max_lag, Duration::from_millis(500));
        let client = &config.client;
        assert_eq!((client.max_body, client.max_bodies), (32 << 20, 1 << 30));
        assert_eq!((client.client_silence, client.client_stall), (Duration::from_secs(30), Duration::from_secs(60)));
        assert_eq!(client.body_seconds, Duration::from_secs(300));
        assert_eq!(config.calls.keepalive, Duration::from_secs(15));
        // Beyond it, a tenth of the calls.
        assert_eq!(config.instances.retry_floor, 10);
    }

    #[test]
    fn settings_do_not_contradict_each_other() {
        Config::command().debug_assert();
    }
}
