//! A database, a Redis and an operator for one test.

use std::sync::Arc;
use std::time::Duration;

use control::admin::Admin;
use control::clients::board::Board;
use control::clients::bus;
use control::clock::Clock;
use control::metrics::Metrics;
use control::state::State;
use control::task;
use control::task::publish_directory::{Keys, PublishDirectory};
use control::task::publish_principals::PublishPrincipals;
use protocol::sealing::DirectoryKey;
use protocol::session::SessionSigner;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::postgres::Database;
use crate::redis_server::RedisServer;

pub(crate) const DATABASE_KEY: &str = "1111111111111111111111111111111111111111111111111111111111111111";
pub(crate) const DIRECTORY_KEY: &str = "2222222222222222222222222222222222222222222222222222222222222222";
pub(crate) const SESSION_SEED: [u8; 32] = [3; 32];
pub(crate) const INSTANCE_KEY: &str = "000102030405060708090a0b0c0d0e0f";
pub(crate) const ALICE: &str = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY";
pub(crate) const BOB: &str = "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty";

/// How soon gateways must be able to know of a change.
pub(crate) const SOON: Duration = Duration::from_secs(1);
/// How long anything else may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// What a test works with.
pub(crate) struct World {
    pub(crate) admin: Admin,
    pub(crate) state: State,
    publishers: JoinSet<anyhow::Result<()>>,
}

impl World {
    /// A migrated database and an operator.
    pub(crate) async fn new() -> Self {
        let database = Database::new().await;
        let state =
            State { db: database.pool.clone(), clock: Clock::default(), metrics: Arc::new(Metrics::new().unwrap()) };
        let key = DirectoryKey::from_hex(DATABASE_KEY).unwrap();
        let admin = Admin::new(state.db.clone(), state.clock, key, SessionSigner::from_seed(SESSION_SEED));
        Self { admin, state, publishers: JoinSet::new() }
    }

    /// Sends lines to the batch interface and reads the answers.
    pub(crate) async fn batch(&self, lines: &str) -> Vec<Value> {
        let mut output = Vec::new();
        self.admin.batch(lines.as_bytes(), &mut output).await.unwrap();
        String::from_utf8(output).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Runs a command that succeeds.
    pub(crate) async fn run(&self, words: &[&str]) -> Value {
        let answer = self.batch(&format!("{}\n", json!(words))).await.remove(0);
        assert_eq!(answer["ok"], true, "{words:?}: {answer}");
        answer["result"].clone()
    }

    /// Runs a command that fails, and gives the reason.
    pub(crate) async fn fail(&self, words: &[&str]) -> String {
        let answer = self.batch(&format!("{}\n", json!(words))).await.remove(0);
        assert_eq!(answer["ok"], false, "{words:?}: {answer}");
        answer["error"].as_str().unwrap().to_owned()
    }

    /// An owner with an image, and a chute of it.
    pub(crate) async fn chute(&self, name: &str) -> Value {
        if self.batch("[\"user\",\"show\",\"--user\",\"chutes\"]\n").await[0]["ok"] == false {
            self.run(&["user", "create", "--username", "chutes"]).await;
            self.run(&["image", "create", "--user", "chutes", "--name", "vllm", "--tag", "1.0"]).await;
        }
        self.run(&["chute", "create", "--spec", &description(name).to_string()]).await
    }

    /// Adds an instance of a chute.
    pub(crate) async fn instance(&self, chute: &Value, port: u16) -> Value {
        let (chute, port) = (chute["chute_id"].as_str().unwrap(), port.to_string());
        self.run(&[
            "instance",
            "add",
            "--chute",
            chute,
            "--host",
            "127.0.0.1",
            "--port",
            &port,
            "--miner-uid",
            "7",
            "--hotkey",
            ALICE,
            "--key",
            INSTANCE_KEY,
        ])
        .await
    }

    pub(crate) fn publish_principals(&self, redis: &RedisServer) -> PublishPrincipals {
        PublishPrincipals::new(self.state.db.clone(), board(redis), Arc::clone(&self.state.metrics))
    }

    pub(crate) fn publish_directory(&self, redis: &RedisServer) -> PublishDirectory {
        let key = |text| DirectoryKey::from_hex(text).unwrap();
        let keys = Keys::new(key(DATABASE_KEY), key(DIRECTORY_KEY));
        let official = vec!["chutes".to_owned()];
        PublishDirectory::new(self.state.db.clone(), board(redis), keys, official, Arc::clone(&self.state.metrics))
    }

    /// Lets both publishers work until the test ends.
    pub(crate) fn publish(&mut self, redis: &RedisServer) {
        let (directory, principals) = (self.publish_directory(redis), self.publish_principals(redis));
        self.publishers.spawn(task::drive(directory, self.state.clone(), CancellationToken::new()));
        self.publishers.spawn(task::drive(principals, self.state.clone(), CancellationToken::new()));
    }
}

pub(crate) fn board(redis: &RedisServer) -> Board {
    Board::new(bus::connect(&redis.url()).unwrap())
}

/// A description of a chute of the user `chutes`.
pub(crate) fn description(name: &str) -> Value {
    json!({
        "user": "chutes", "name": name, "image": "vllm:1.0", "template": "vllm", "public": true, "concurrency": 8,
        "cords": [{"function": "chat", "path": "/chat", "public_path": "/v1/chat/completions"}],
        "price": {"input": 10, "output": 20},
    })
}

/// Waits for a condition and says how long it took.
pub(crate) async fn until(within: Duration, mut condition: impl FnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < within, "not within {within:?}");
        sleep(Duration::from_millis(5)).await;
    }
    begun.elapsed()
}
