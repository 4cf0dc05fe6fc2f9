//! A private Redis behind a socket of its own.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long the server may take to start on a busy machine.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// A running Redis; it ends with this value, or with the test's thread.
pub(crate) struct RedisServer {
    folder: TempDir,
    child: Child,
}

impl RedisServer {
    /// Starts one.
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let child = spawn(&folder);
        let server = Self { folder, child };
        server.wait();
        server
    }

    /// Where it is.
    pub(crate) fn url(&self) -> String {
        format!("redis+unix://{}?protocol=resp3", self.socket())
    }

    /// A connection for the test itself.
    pub(crate) fn connection(&self) -> redis::Connection {
        redis::Client::open(self.url()).unwrap().get_connection().unwrap()
    }

    /// Kills it.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again on what it had saved.
    pub(crate) fn restart(&mut self) {
        self.child = spawn(&self.folder);
        self.wait();
    }

    fn socket(&self) -> String {
        self.folder.path().join("redis.sock").display().to_string()
    }

    fn wait(&self) {
        let begun = Instant::now();
        let client = redis::Client::open(self.url()).unwrap();
        loop {
            let answer = client.get_connection().and_then(|mut connection| redis::cmd("PING").exec(&mut connection));
            if answer.is_ok() {
                return;
            }
            assert!(begun.elapsed() < START_TIMEOUT, "Redis does not start: {answer:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(folder: &TempDir) -> Child {
    Command::new("redis-server")
        .args(["--port", "0", "--unixsocket", "redis.sock", "--save", "", "--appendonly", "no", "--dir"])
        .arg(folder.path())
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server is installed")
}
