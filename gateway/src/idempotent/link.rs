//! A connection to Redis for answers alone, opened when it is first needed and anew when it failed.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue, RedisError, RedisResult};
use tokio::sync::OnceCell;
use tokio::time::timeout;

/// How long Redis may take to answer, and to take up a connection before.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// The way to Redis.
pub(super) struct Link {
    client: Client,
    /// What is asked over: open, or opened by whoever asks first while the others wait.
    current: Mutex<Arc<Connection>>,
}

type Connection = OnceCell<MultiplexedConnection>;

impl Link {
    /// A way that is not open yet.
    pub(super) fn new(client: Client) -> Self {
        Self { client, current: Mutex::default() }
    }

    /// Has Redis do something that may be done twice.
    ///
    /// # Errors
    /// When it does not, or does not say so in time.
    pub(super) async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        match self.ask_once(command).await {
            // A connection that broke while nobody asked is known to be broken only now.
            Err(error) if error.is_connection_dropped() => self.ask_once(command).await,
            answer => answer,
        }
    }

    async fn ask_once<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        let connection = self.current.lock().expect("nothing panics under this lock").clone();
        let asking = async {
            let mut opened = connection.get_or_try_init(|| self.open()).await?.clone();
            command.query_async(&mut opened).await
        };
        let answer =
            timeout(PATIENCE, asking).await.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()));
        if let Err(error) = &answer
            && error.is_io_error()
        {
            self.leave(&connection, error);
        }
        answer
    }

    async fn open(&self) -> RedisResult<MultiplexedConnection> {
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(PATIENCE)).set_response_timeout(Some(PATIENCE));
        self.client.get_multiplexed_async_connection_with_config(&config).await
    }

    /// Has the next question go over another connection; what still waits for an answer over this one goes on.
    fn leave(&self, failed: &Arc<Connection>, error: &RedisError) {
        let mut current = self.current.lock().expect("nothing panics under this lock");
        if !Arc::ptr_eq(&current, failed) {
            return;
        }
        *current = Arc::default();
        if failed.initialized() {
            tracing::warn!(%error, "the connection to redis for answers failed");
        }
    }
}
