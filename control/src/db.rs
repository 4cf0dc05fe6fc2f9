//! Postgres: the pool, the migrations, and the only floor with SQL.

use std::str::FromStr;
use std::time::Duration;

use anyhow::Context;
use sqlx::PgPool;
use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

pub mod aliases;
pub mod api_keys;
pub mod balances;
pub mod chute_calls;
pub mod chutes;
pub mod duty;
pub mod exports;
pub mod hotkeys;
pub mod images;
pub mod instances;
pub mod invocations;
pub mod log_writers;
pub mod outbox;
pub mod pace;
pub mod partitions;
pub mod principals;
pub mod publications;
pub mod quota_usage;
pub mod quotas;
pub mod reports;
pub mod shares;
pub mod usage_rejects;
pub mod users;

/// All migrations, compiled in.
pub static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// Connections of one process.
const CONNECTIONS: u32 = 16;
/// How long a caller waits for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// Limits that the server enforces on each connection, in milliseconds.
const LIMITS: [(&str, &str); 3] =
    [("statement_timeout", "30000"), ("lock_timeout", "10000"), ("idle_in_transaction_session_timeout", "30000")];

/// A pool that connects when first used, so that a process starts while Postgres is away.
///
/// # Errors
/// When the URL cannot be read.
pub fn pool(url: &str) -> anyhow::Result<PgPool> {
    let options = PgConnectOptions::from_str(url).context("reading the URL of Postgres")?;
    let options = options.application_name("control").options(LIMITS);
    Ok(PgPoolOptions::new().max_connections(CONNECTIONS).acquire_timeout(ACQUIRE_TIMEOUT).connect_lazy_with(options))
}

/// Brings the database to the newest form.
///
/// # Errors
/// When Postgres is away or a migration fails.
pub async fn migrate(url: &str) -> anyhow::Result<()> {
    let options = PgConnectOptions::from_str(url).context("reading the URL of Postgres")?;
    let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(ACQUIRE_TIMEOUT).connect_with(options).await;
    MIGRATIONS.run(&pool.context("connecting to Postgres")?).await.context("migrating")
}

/// Whether Postgres answers.
///
/// # Errors
/// When it does not.
pub async fn ping(db: &PgPool) -> sqlx::Result<()> {
    sqlx::query!(r#"select 1 as "one!""#).fetch_one(db).await.map(drop)
}

/// Reads a stored value as the type that the column's constraints promise.
fn stored<T, E: std::error::Error + Send + Sync + 'static>(value: Result<T, E>) -> sqlx::Result<T> {
    value.map_err(|error| sqlx::Error::Decode(error.into()))
}
