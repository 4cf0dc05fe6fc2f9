//! A private Redis for one test: started on a free port, killed at the end.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A running `redis-server` that keeps nothing on disk.
pub(crate) struct RedisServer {
    port: u16,
    process: Child,
    _folder: TempDir,
}

impl RedisServer {
    /// Starts one on a free port of the loopback.
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let process = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"])
            .arg(folder.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server (Debian package redis-server) can be started");
        let server = Self { port, process, _folder: folder };
        let begun = Instant::now();
        while server.client().get_connection_with_timeout(Duration::from_millis(200)).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(30), "redis-server does not answer on port {port}");
            std::thread::sleep(Duration::from_millis(10));
        }
        server
    }

    /// Its address, speaking RESP3.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0?protocol=resp3", self.port)
    }

    /// A connection for the test itself.
    pub(crate) fn connection(&self) -> redis::Connection {
        self.client().get_connection_with_timeout(Duration::from_secs(2)).unwrap()
    }

    fn client(&self) -> redis::Client {
        redis::Client::open(self.url()).unwrap()
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // It ends with the test, whatever it says.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
