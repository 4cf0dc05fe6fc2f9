//! Every setting of the program, typed and documented; read once, before any port is opened.

use std::net::SocketAddr;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand};

/// Everything that decides and remembers; one role per process.
#[derive(Parser)]
#[command(name = "control", version)]
pub struct Config {
    /// Prints which state of the tree this executable was built from.
    #[arg(long, exclusive = true)]
    pub build_id: bool,

    /// Which messages are logged, as `tracing` filters.
    #[arg(long, env = "CONTROL_LOG", default_value = "info")]
    pub log: String,

    /// What this process does.
    #[command(subcommand)]
    pub role: Option<Role>,
}

/// What a process does.
#[derive(Subcommand)]
pub enum Role {
    /// Brings the database to the newest form, then ends.
    Migrate(Database),
    /// Does the duties: publishes, ingests, exports.
    Worker(Worker),
    /// Serves the public routes.
    Api(Api),
    /// Runs one operator's command, or `batch`: one JSON array of words per line.
    Admin(Admin),
}

/// Settings of the role `worker`.
#[derive(Args)]
pub struct Worker {
    /// Postgres.
    #[command(flatten)]
    pub database: Database,
    /// Redis.
    #[command(flatten)]
    pub redis: Redis,
    /// The object store.
    #[command(flatten)]
    pub store: Store,
    /// The internal listener.
    #[command(flatten)]
    pub internal: Internal,
    /// Key under which instance keys rest in Postgres.
    #[command(flatten)]
    pub database_key: DatabaseKey,
    /// The clock.
    #[command(flatten)]
    pub time: Time,

    /// Key under which instance keys are sealed in the directory: 64 hex digits.
    #[arg(long, env = "DIRECTORY_KEY", hide_env_values = true)]
    pub directory_key: Secret,

    /// Users whose public LLM chutes appear in the model list; repeatable.
    #[arg(long, env = "OFFICIAL_USERS", value_delimiter = ',', default_value = "chutes")]
    pub official_users: Vec<String>,
}

/// Settings of the role `api`.
#[derive(Args)]
pub struct Api {
    /// Postgres.
    #[command(flatten)]
    pub database: Database,
    /// The object store.
    #[command(flatten)]
    pub store: Store,
    /// The internal listener.
    #[command(flatten)]
    pub internal: Internal,
    /// The clock.
    #[command(flatten)]
    pub time: Time,

    /// Address of the public routes.
    #[arg(long, env = "CONTROL_LISTEN", default_value = "127.0.0.1:8000")]
    pub listen: SocketAddr,
}

/// Settings of the role `admin`.
#[derive(Args)]
pub struct Admin {
    /// Postgres.
    #[command(flatten)]
    pub database: Database,
    /// Key under which instance keys rest in Postgres.
    #[command(flatten)]
    pub database_key: DatabaseKey,
    /// The clock.
    #[command(flatten)]
    pub time: Time,

    /// Seed of the key that signs user sessions: 64 hex digits.
    #[arg(long, env = "SESSION_SEED", hide_env_values = true)]
    pub session_seed: Secret,

    /// The command; `help` lists them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    pub command: Vec<String>,
}

/// Where Postgres is.
#[derive(Args)]
pub struct Database {
    /// Postgres, with the role's own user.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: Secret,
}

/// The key that protects secrets in Postgres.
#[derive(Args)]
pub struct DatabaseKey {
    /// Key under which instance keys rest in Postgres: 64 hex digits.
    #[arg(long, env = "DATABASE_KEY", hide_env_values = true)]
    pub database_key: Secret,
}

/// Where Redis is.
#[derive(Args)]
pub struct Redis {
    /// Redis, with control's own ACL user.
    #[arg(long, env = "REDIS_URL", hide_env_values = true)]
    pub redis_url: Secret,
}

/// Where the object store is.
#[derive(Args)]
pub struct Store {
    /// URL of the S3 endpoint.
    #[arg(long, env = "S3_ENDPOINT")]
    pub s3_endpoint: String,

    /// Bucket of exports.
    #[arg(long, env = "S3_BUCKET")]
    pub s3_bucket: String,

    /// Region of the bucket.
    #[arg(long, env = "S3_REGION", default_value = "auto")]
    pub s3_region: String,

    /// Access key of the object store.
    #[arg(long, env = "S3_ACCESS_KEY", hide_env_values = true)]
    pub s3_access_key: Secret,

    /// Secret key of the object store.
    #[arg(long, env = "S3_SECRET_KEY", hide_env_values = true)]
    pub s3_secret_key: Secret,
}

/// The listener that only our own programs and operators reach.
#[derive(Args)]
pub struct Internal {
    /// Address of metrics, health and look-ups.
    #[arg(long, env = "CONTROL_INTERNAL_LISTEN", default_value = "127.0.0.1:8001")]
    pub internal_listen: SocketAddr,

    /// Credential of the internal listeners.
    #[arg(long, env = "INTERNAL_CREDENTIAL", hide_env_values = true)]
    pub internal_credential: Secret,
}

/// How the clock runs.
#[derive(Args)]
pub struct Time {
    /// Seconds added to the clock, to close an hour in a test.
    #[cfg(debug_assertions)]
    #[arg(long, default_value = "0", allow_negative_numbers = true)]
    pub clock_offset: i64,
}

impl Time {
    /// The clock these settings ask for.
    #[must_use]
    pub fn clock(&self) -> crate::clock::Clock {
        #[cfg(debug_assertions)]
        return crate::clock::Clock::ahead(self.clock_offset);
        #[cfg(not(debug_assertions))]
        return crate::clock::Clock::default();
    }
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

impl FromStr for Secret {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() { Err("a secret must not be empty") } else { Ok(Self(text.to_owned())) }
    }
}
