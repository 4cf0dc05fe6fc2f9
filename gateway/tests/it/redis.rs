//! A private Redis process for one test.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

/// A running Redis; it ends with the test.
pub struct Redis {
    process: Child,
    port: u16,
    _folder: TempDir,
}

impl Redis {
    /// Starts a Redis on a free port and waits until it answers.
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let process = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"])
            .arg(folder.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let redis = Self { process, port, _folder: folder };
        while redis.try_connect().await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        redis
    }

    /// The address a program is given.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/?protocol=resp3", self.port)
    }

    /// A connection of the test's own.
    pub async fn connect(&self) -> redis::aio::MultiplexedConnection {
        self.try_connect().await.unwrap()
    }

    async fn try_connect(&self) -> redis::RedisResult<redis::aio::MultiplexedConnection> {
        redis::Client::open(self.url())?.get_multiplexed_async_connection().await
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
