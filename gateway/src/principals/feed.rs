//! Follows the changes of principals on one Redis connection, which it keeps proving alive.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use protocol::keys::PRINCIPAL_PREFIXES;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ProtocolVersion, PushInfo, PushKind, RedisResult, Value};

use super::Principals;
use crate::clock::Clock;

/// Pause between two proofs.
const PROOF_EVERY: Duration = Duration::from_millis(500);
/// How long an answer may take before the connection counts as dead.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// How long a new connection may take in all.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// Pause before another connection is tried.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// Checks a Redis URL without connecting.
pub(crate) fn client(url: &str) -> anyhow::Result<redis::Client> {
    let client = redis::Client::open(url).context("reading the redis url")?;
    let protocol = client.get_connection_info().redis_settings().protocol();
    ensure!(protocol == ProtocolVersion::RESP3, "the redis url must say ?protocol=resp3");
    Ok(client)
}

impl Principals {
    /// Follows Redis for as long as it is polled.
    pub async fn follow(self: Arc<Self>) {
        let mut is_told = false;
        loop {
            let error = match self.connect().await {
                Ok(connection) => {
                    is_told = false;
                    self.keep_proving(connection).await
                }
                Err(error) => error,
            };
            self.connection.store(None);
            self.metrics.redis.principals.set(0);
            // Once until they are followed again.
            if !std::mem::replace(&mut is_told, true) {
                tracing::warn!(error = format!("{error:#}"), "principals are not followed");
            }
            tokio::time::sleep(RETRY_AFTER).await;
        }
    }

    /// Opens a connection on which Redis announces every change of a principal.
    async fn connect(self: &Arc<Self>) -> anyhow::Result<MultiplexedConnection> {
        let principals = Arc::downgrade(self);
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(ANSWER_WITHIN))
            .set_response_timeout(Some(ANSWER_WITHIN))
            .set_push_sender(move |push| hear(&principals, &push));
        let connecting = async {
            let mut connection = self.client.get_multiplexed_async_connection_with_config(&config).await?;
            let mut tracking = redis::cmd("CLIENT");
            tracking.arg("TRACKING").arg("ON").arg("BCAST");
            for prefix in PRINCIPAL_PREFIXES {
                tracking.arg("PREFIX").arg(prefix);
            }
            tracking.exec_async(&mut connection).await?;
            RedisResult::Ok(connection)
        };
        let connection = tokio::time::timeout(CONNECT_WITHIN, connecting).await.context("connecting took too long")?;
        connection.context("connecting to redis")
    }

    /// Lends the connection to readers until it fails; says why it did.
    async fn keep_proving(self: &Arc<Self>, mut connection: MultiplexedConnection) -> anyhow::Error {
        self.proof.begin(Instant::now());
        self.connection.store(Some(Arc::new(connection.clone())));
        self.metrics.redis.principals.set(1);
        tracing::info!("principals are followed");
        loop {
            let epoch = self.proof.current();
            match prove(&mut connection).await {
                Ok(proven_at) => {
                    self.proof.extend(epoch, proven_at);
                    let seen_at = Clock::default().now() - proven_at.elapsed();
                    self.metrics.who.principals_seen_at.set(seen_at.timestamp());
                }
                Err(error) => return anyhow::Error::new(error).context("proving the redis connection alive"),
            }
            self.count_held();
            tokio::time::sleep(PROOF_EVERY).await;
        }
    }

    fn count_held(&self) {
        let held = self.keys.cache.len() + self.users.cache.len() + self.hotkeys.cache.len() + self.funds.cache.len();
        self.metrics.who.principals_held.set(i64::try_from(held).unwrap_or(i64::MAX));
    }

    fn invalidate(&self, key: &str) {
        match key.split_once(':').map(|(kind, _)| kind) {
            Some("key") => self.keys.cache.invalidate(key),
            Some("user") => self.users.cache.invalidate(key),
            Some("hotkey") => self.hotkeys.cache.invalidate(key),
            Some("funds") => self.funds.cache.invalidate(key),
            // `principals:complete` is read anew with every miss; nothing is kept of it.
            Some("principals") => {}
            Some(_) | None => tracing::error!("redis announced a change of a key that is not tracked"),
        }
    }
}

/// The latest moment up to which every announcement has surely arrived.
///
/// Redis queues announcements at the end of the turn of its event loop in which a key changed, so that they may come
/// after the answer to a ping of the same turn. The second ping is sent after the first was answered and falls into a
/// later turn: its answer stands behind all announcements of changes before the first was sent.
///
/// The pings are questions for the time: one that cannot save its data refuses `PING` as if it was a write.
async fn prove(connection: &mut MultiplexedConnection) -> RedisResult<Instant> {
    let sent_at = Instant::now();
    redis::cmd("TIME").exec_async(connection).await?;
    redis::cmd("TIME").exec_async(connection).await?;
    Ok(sent_at)
}

/// Runs inside the connection, in the order of arrival: an announcement takes effect before any later answer is seen.
fn hear(principals: &Weak<Principals>, push: &PushInfo) -> Result<(), redis::aio::SendError> {
    let principals = principals.upgrade().ok_or(redis::aio::SendError)?;
    if push.kind != PushKind::Invalidate {
        return Ok(());
    }
    match push.data.first() {
        Some(Value::Array(keys)) => {
            for key in keys {
                match key {
                    Value::BulkString(key) => principals.invalidate(&String::from_utf8_lossy(key)),
                    _ => principals.proof.begin(Instant::now()),
                }
            }
        }
        // Without keys it means all of them: the database was flushed.
        _ => principals.proof.begin(Instant::now()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_without_resp3_is_refused_at_start() {
        assert!(client("redis://127.0.0.1:6379/?protocol=resp3").is_ok());
        assert!(client("redis://127.0.0.1:6379/").is_err());
        assert!(client("http://127.0.0.1/").is_err());
    }
}
