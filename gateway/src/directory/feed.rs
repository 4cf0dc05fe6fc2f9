//! Follows the snapshots in Redis and judges each before it takes force.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use protocol::directory::{self, Header, Refused};
use protocol::keys::Key;
use redis::aio::MultiplexedConnection;
use redis::{AsyncCommands, AsyncConnectionConfig, PushInfo, PushKind};

use super::{Directory, InForce, Routes};
use crate::metrics::MISSING;

/// Pause between two looks, should an announcement be lost.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long an answer may take; a snapshot may have megabytes.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// How long a new connection may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// Pause before another connection is tried.
const RETRY_AFTER: Duration = Duration::from_millis(200);
/// Enough of a snapshot to see its header line.
const HEADER_BYTES: isize = 1024;

/// Why there is no new snapshot in force.
enum NotTaken {
    Refused(Refused),
    /// There is none in Redis.
    Missing,
}

impl Directory {
    /// Follows Redis for as long as it is polled.
    pub async fn follow(self: Arc<Self>) {
        let (mut last_refused, mut is_told) = (None, false);
        loop {
            let error = match self.connect().await {
                Ok(connection) => {
                    is_told = false;
                    self.metrics.redis.directory.set(1);
                    self.keep_looking(connection, &mut last_refused).await
                }
                Err(error) => error,
            };
            self.metrics.redis.directory.set(0);
            // Once until it is followed again.
            if !std::mem::replace(&mut is_told, true) {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "the directory is not followed, the last good one serves on"
                );
            }
            tokio::time::sleep(RETRY_AFTER).await;
        }
    }

    async fn connect(&self) -> anyhow::Result<MultiplexedConnection> {
        let changed = Arc::clone(&self.changed);
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_WITHIN))
            .set_response_timeout(Some(ANSWER_WITHIN))
            .set_push_sender(move |push: PushInfo| {
                if push.kind == PushKind::Message {
                    changed.notify_one();
                }
                Ok::<(), redis::aio::SendError>(())
            });
        let connecting = async {
            let mut connection = self.client.get_multiplexed_async_connection_with_config(&config).await?;
            connection.subscribe(Key::directory_changed().as_str()).await?;
            redis::RedisResult::Ok(connection)
        };
        let connection = tokio::time::timeout(CONNECT_WITHIN, connecting).await.context("connecting took too long")?;
        connection.context("connecting to redis")
    }

    /// Looks at once, when told of a change, and every second; says why it had to stop.
    async fn keep_looking(
        &self,
        mut connection: MultiplexedConnection,
        last_refused: &mut Option<String>,
    ) -> anyhow::Error {
        loop {
            if let Err(error) = self.look(&mut connection, last_refused).await {
                return anyhow!(error).context("reading the directory");
            }
            // Either way it looks again; a timeout only means that nothing was announced.
            let _ = tokio::time::timeout(LOOK_EVERY, self.changed.notified()).await;
        }
    }

    async fn look(
        &self,
        connection: &mut MultiplexedConnection,
        last_refused: &mut Option<String>,
    ) -> redis::RedisResult<()> {
        let start: Vec<u8> = connection.getrange(Key::directory().as_str(), 0, HEADER_BYTES - 1).await?;
        let line = header_line(&start);
        let in_force = self.in_force.load_full();
        if let (Some(line), Some(in_force)) = (&line, &in_force)
            && *line == in_force.line
        {
            self.metrics.who.directory_seen_at.set(self.clock.now().timestamp());
            *last_refused = None;
            return Ok(());
        }
        let text: Option<Vec<u8>> = connection.get(Key::directory().as_str()).await?;
        match self.take_over(text.as_deref(), in_force.as_deref()) {
            Ok(()) => *last_refused = None,
            Err(reason) => {
                let line = line.unwrap_or_default();
                // Once per refused snapshot, not once per look.
                if last_refused.as_ref() != Some(&line) {
                    self.report(&reason);
                    *last_refused = Some(line);
                }
            }
        }
        Ok(())
    }

    fn take_over(&self, text: Option<&[u8]>, in_force: Option<&InForce>) -> Result<(), NotTaken> {
        let text = text.ok_or(NotTaken::Missing)?;
        let text = std::str::from_utf8(text).map_err(|_| NotTaken::Refused(Refused::Damaged("not UTF-8")))?;
        let (header, directory) = directory::Directory::from_snapshot(text).map_err(NotTaken::Refused)?;
        if let Some(in_force) = in_force {
            header.may_replace(&in_force.header).map_err(NotTaken::Refused)?;
        }
        let line = text.lines().next().unwrap_or_default().to_owned();
        self.enforce(line, header, directory, in_force);
        Ok(())
    }

    fn enforce(&self, line: String, header: Header, directory: directory::Directory, previous: Option<&InForce>) {
        let routes = Routes::build(directory, &self.key, previous.map(|previous| previous.routes.as_ref()));
        tracing::debug!(
            version = header.version,
            chutes = header.chutes,
            instances = header.instances,
            "new directory"
        );
        self.metrics.who.directory_chutes.set(i64::try_from(header.chutes).unwrap_or(i64::MAX));
        self.metrics.who.directory_instances.set(i64::try_from(header.instances).unwrap_or(i64::MAX));
        self.metrics.who.directory_version.set(i64::try_from(header.version).unwrap_or(i64::MAX));
        self.metrics.who.directory_made_at.set(header.made_at.timestamp());
        self.metrics.who.directory_seen_at.set(self.clock.now().timestamp());
        self.metrics.who.directory_unopened.set(i64::try_from(routes.unopened()).unwrap_or(i64::MAX));
        self.in_force.store(Some(Arc::new(InForce { line, header, routes: Arc::new(routes) })));
    }

    fn report(&self, reason: &NotTaken) {
        let label = match reason {
            NotTaken::Missing => MISSING,
            NotTaken::Refused(refused) => refused.label(),
        };
        self.metrics.who.directory_refused.with_label_values(&[label]).inc();
        match reason {
            NotTaken::Missing => tracing::warn!("there is no directory in redis, the last good one serves on"),
            NotTaken::Refused(refused) => tracing::warn!(%refused, "refused a directory, the last good one serves on"),
        }
    }
}

/// The first line, if it ends within these bytes.
fn header_line(start: &[u8]) -> Option<String> {
    let end = start.iter().position(|byte| *byte == b'\n')?;
    String::from_utf8(start[..end].to_vec()).ok()
}
