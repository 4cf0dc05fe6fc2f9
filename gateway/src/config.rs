//! Every setting of the program, typed and documented; read once, before any port is opened.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

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

    /// Folder of the record logs of all gateways of this machine.
    #[arg(long, env = "GATEWAY_LOG_FOLDER")]
    pub log_folder: PathBuf,

    /// Size of one log segment in bytes.
    #[arg(long, env = "GATEWAY_LOG_SEGMENT", default_value = "16777216")]
    pub log_segment: u64,

    /// How long confirmed segments stay.
    #[arg(long, env = "GATEWAY_LOG_KEEP_SECONDS", default_value = "86400", value_parser = seconds)]
    pub log_keep: Duration,

    /// Calls in flight at once in this process.
    #[arg(long, env = "GATEWAY_MAX_CALLS", default_value = "16384")]
    pub max_calls: usize,

    /// Address that calls to instances leave from.
    #[arg(long, env = "GATEWAY_SOURCE")]
    pub source: Option<IpAddr>,

    /// Peers whose `X-Forwarded-For` is believed; repeatable.
    #[arg(long, env = "GATEWAY_TRUSTED_PEERS", value_delimiter = ',')]
    pub trusted_peers: Vec<IpAddr>,

    /// How long principals serve while Redis cannot be reached.
    #[arg(long, env = "GATEWAY_STALE_AFTER", default_value = "30", value_parser = seconds)]
    pub stale_after: Duration,

    /// Principals kept in memory.
    #[arg(long, env = "GATEWAY_PRINCIPALS", default_value = "200000")]
    pub principals: usize,

    /// Calls per minute and user, also per user and chute, unless overridden.
    #[arg(long, env = "GATEWAY_RATE_PER_MINUTE", default_value = "600")]
    pub rate_per_minute: u32,

    /// Calls at once per user, also per user and chute, unless overridden.
    #[arg(long, env = "GATEWAY_MAX_CONCURRENT", default_value = "128")]
    pub max_concurrent: u32,

    /// Largest request body in bytes.
    #[arg(long, env = "GATEWAY_MAX_BODY", default_value = "33554432")]
    pub max_body: usize,

    /// Bytes of all request bodies in memory together.
    #[arg(long, env = "GATEWAY_MAX_BODIES", default_value = "1073741824")]
    pub max_bodies: usize,

    /// Time to connect to an instance.
    #[arg(long, env = "GATEWAY_CONNECT_SECONDS", default_value = "5", value_parser = seconds)]
    pub connect: Duration,

    /// Time until the first chunk of an answer.
    #[arg(long, env = "GATEWAY_FIRST_CHUNK_SECONDS", default_value = "600", value_parser = seconds)]
    pub first_chunk: Duration,

    /// Time between two chunks of an answer.
    #[arg(long, env = "GATEWAY_IDLE_SECONDS", default_value = "300", value_parser = seconds)]
    pub idle: Duration,

    /// Largest answer in one piece, and largest error body of an instance, in bytes.
    #[arg(long, env = "GATEWAY_MAX_ANSWER", default_value = "67108864")]
    pub max_answer: usize,

    /// How long a client may be silent while it sends its body.
    #[arg(long, env = "GATEWAY_CLIENT_SILENCE_SECONDS", default_value = "30", value_parser = seconds)]
    pub client_silence: Duration,

    /// How long the whole body of a call may take to arrive.
    #[arg(long, env = "GATEWAY_BODY_SECONDS", default_value = "300", value_parser = seconds)]
    pub body_seconds: Duration,

    /// How long a client may take nothing of what it is sent.
    #[arg(long, env = "GATEWAY_CLIENT_STALL_SECONDS", default_value = "60", value_parser = seconds)]
    pub client_stall: Duration,

    /// How long an instance that failed is left alone before one call tries it.
    #[arg(long, env = "GATEWAY_STRIKE_SECONDS", default_value = "10", value_parser = seconds)]
    pub strike: Duration,

    /// How long a stopping gateway waits for calls in flight.
    #[arg(long, env = "GATEWAY_DRAIN_SECONDS", default_value = "120", value_parser = seconds)]
    pub drain: Duration,

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
