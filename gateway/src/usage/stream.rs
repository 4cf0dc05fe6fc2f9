//! The usage stream in Redis: adds entries, reads marks.

use std::time::Duration;

use protocol::ids::WriterId;
use protocol::keys::Key;
use protocol::usage::{Beat, Entry, FINAL_FIELDS};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Pipeline, RedisResult};

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
        let run = match redis::cmd("INFO").arg("server").query_async::<String>(&mut connection).await {
            Ok(text) => text.lines().find_map(|line| line.strip_prefix("run_id:")).map(|run| run.trim().to_owned()),
            Err(error) if error.is_io_error() || error.is_timeout() => return Err(error),
            Err(_) => None,
        };
        Ok((Self { connection }, run))
    }

    /// Adds a writer's finals in order, in one round trip; their records go as they lie in the log.
    pub(crate) async fn add_finals(&mut self, writer: WriterId, finals: &[(u64, Vec<u8>)]) -> RedisResult<()> {
        let (key, writer) = (Key::usage(), writer.to_string());
        let [of, place, record] = FINAL_FIELDS;
        let mut pipeline = Pipeline::with_capacity(finals.len());
        for (sequence, text) in finals {
            let command = pipeline.cmd("XADD").arg(key.as_str()).arg("*");
            command.arg(of).arg(&writer).arg(place).arg(*sequence).arg(record).arg(text).ignore();
        }
        pipeline.query_async(&mut self.connection).await
    }

    /// Adds beats, in one round trip.
    pub(crate) async fn add_beats(&mut self, beats: &[(WriterId, Beat)]) -> RedisResult<()> {
        let key = Key::usage();
        let mut pipeline = Pipeline::with_capacity(beats.len());
        for (writer, beat) in beats {
            let command = pipeline.cmd("XADD").arg(key.as_str()).arg("*");
            for (field, value) in (Entry::Beat { writer: *writer, beat: *beat }).to_fields() {
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
