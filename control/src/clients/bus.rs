//! Connections to Redis: made in one place, each with its time limits.

use std::time::Duration;

use anyhow::Context;
use redis::Client;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long an answer may take, a blocking read included.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest pause between two attempts to connect again.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A connection that is made when first used and again after it broke; the ACL user stands in the URL.
///
/// # Errors
/// When the URL cannot be read.
pub fn connect(url: &str) -> anyhow::Result<ConnectionManager> {
    let client = Client::open(url).context("reading the URL of Redis")?;
    let config = ConnectionManagerConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(RESPONSE_TIMEOUT))
        .set_max_delay(LONGEST_PAUSE);
    ConnectionManager::new_lazy_with_config(client, config).context("preparing a connection to Redis")
}
