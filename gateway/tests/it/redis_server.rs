//! A private Redis for one test: started on a free port, killed at the end.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::ports::free_port;

/// A running `redis-server` that keeps nothing on disk.
pub(crate) struct RedisServer {
    port: u16,
    folder: TempDir,
    process: Child,
}

impl RedisServer {
    /// Starts one on a free port of the loopback.
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let process = launch(port, &folder, &[]);
        let server = Self { port, folder, process };
        server.wait_until_ready();
        server
    }

    /// Its address, speaking RESP3.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0?protocol=resp3", self.port)
    }

    /// Its port on the loopback.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// A connection for the test itself.
    pub(crate) fn connection(&self) -> redis::Connection {
        redis::Client::open(self.url()).unwrap().get_connection_with_timeout(Duration::from_secs(2)).unwrap()
    }

    /// Kills it as a crash would; all data is gone.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts it again, empty, on the same port.
    pub(crate) fn restart(&mut self) {
        self.process = launch(self.port, &self.folder, &[]);
        self.wait_until_ready();
    }

    /// Starts it again with what it saved last, so slowly that it stays busy reading it; does not wait for it.
    pub(crate) fn restart_slowly(&mut self) {
        let slowly = ["--key-load-delay", "1000", "--loading-process-events-interval-bytes", "1024"];
        self.process = launch(self.port, &self.folder, &slowly);
    }

    /// The folder of what it saves.
    pub(crate) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Stops answering without closing a connection.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Goes on after a freeze.
    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }

    fn wait_until_ready(&self) {
        let client = redis::Client::open(self.url()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while client.get_connection_with_timeout(Duration::from_millis(200)).is_err() {
            assert!(Instant::now() < deadline, "redis-server does not answer on port {}", self.port);
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // A test may have killed it already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn launch(port: u16, folder: &TempDir, more: &[&str]) -> Child {
    Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"])
        .arg(folder.path())
        .args(more)
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server (Debian package redis-server) can be started")
}
