//! The usage stream in Redis: adds entries, reads marks.

use std::time::Duration;

use protocol::ids::WriterId;
use protocol::keys::Key;
use protocol::usage::{Entry, Written};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Pipeline, RedisResult};

use crate::redis_run::run_id;

/// How long to wait for a connection or an answer.
const TIMEOUT: Duration = Duration::from_secs(2);

/// A connection of the shipper's own.
pub(crate) struct Stream {
    connection: MultiplexedConnection,
}

impl Stream {
    /// Connects, and asks which run of Redis this is; none if it may not say.
    pub(crate) async fn connect(client: &Client) -> RedisResult<(Self, Option<String>)> {
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(TIMEOUT)).set_response_timeout(Some(TIMEOUT));
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        // The handshake has commands of its own, which the two timeouts need not cover.
        let mut connection = tokio::time::timeout(2 * TIMEOUT, connecting)
            .await
            .map_err(|_| redis::RedisError::from(std::io::Error::from(std::io::ErrorKind::TimedOut)))??;
        let run = run_id(&mut connection).await?;
        Ok((Self { connection }, run))
    }

    /// Adds entries in order, in one round trip.
    pub(crate) async fn add(&mut self, entries: &[Entry<Written>]) -> RedisResult<()> {
        let key = Key::usage();
        let mut pipeline = Pipeline::with_capacity(entries.len());
        for entry in entries {
            let command = pipeline.cmd("XADD").arg(key.as_str()).arg("*");
            for (field, value) in entry.to_fields() {
                command.arg(field).arg(value);
            }
            command.ignore();
        }
        pipeline.query_async(&mut self.connection).await
    }

    /// The published marks of these writers, and how many entries the stream has.
    pub(crate) async fn marks(&mut self, writers: &[WriterId]) -> RedisResult<(Vec<Option<u64>>, usize)> {
        let mut pipeline = Pipeline::new();
        let command = pipeline.cmd("HMGET").arg(Key::usage_marks().as_str());
        for writer in writers {
            command.arg(writer.to_string());
        }
        pipeline.cmd("XLEN").arg(Key::usage().as_str());
        pipeline.query_async(&mut self.connection).await
    }
}
