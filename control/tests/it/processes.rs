//! The executable itself: its roles, its batch interface, its stop.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use protocol::keys::Key;
use redis::Commands;
use serde_json::{Value, json};

use crate::postgres::Database;
use crate::redis_server::RedisServer;
use crate::world::{DATABASE_KEY, DIRECTORY_KEY, PATIENCE, until};

fn control(database: &Database, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_control"));
    command.args(arguments);
    command.env("DATABASE_URL", &database.url).env("DATABASE_KEY", DATABASE_KEY).env("SESSION_SEED", "3".repeat(64));
    command
}

/// A process that ends with this value.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn the_executable_says_what_it_was_built_from() {
    let output = Command::new(env!("CARGO_BIN_EXE_control")).arg("--build-id").output().unwrap();
    assert!(output.status.success());
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(said.trim_end(), option_env!("CHUTES_BUILD_ID").unwrap_or("unset"));
}

#[tokio::test]
async fn migrate_may_be_repeated() {
    let database = Database::new().await;
    for _ in 0..2 {
        assert!(control(&database, &["migrate"]).status().unwrap().success());
    }
}

#[tokio::test]
async fn one_command_prints_for_people_or_as_json_and_fails_with_words() {
    let database = Database::new().await;
    let json = control(&database, &["admin", "--json", "user", "create", "--username", "jon"]).output().unwrap();
    assert!(json.status.success());
    let made: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(made["username"], "jon");
    let people = control(&database, &["admin", "user", "show", "--user", "jon"]).output().unwrap();
    assert!(String::from_utf8(people.stdout).unwrap().contains("username         jon\n"));
    let failed = control(&database, &["admin", "user", "show", "--user", "eve"]).output().unwrap();
    assert_eq!((failed.status.code(), failed.stderr.as_slice()), (Some(1), b"there is no user eve\n".as_slice()));
}

#[tokio::test]
async fn a_batch_stays_open_and_answers_line_by_line() {
    let database = Database::new().await;
    let mut command = control(&database, &["admin", "batch"]);
    let mut batch = Process(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
    let mut input = batch.0.stdin.take().unwrap();
    let mut output = BufReader::new(batch.0.stdout.take().unwrap()).lines();
    for name in ["jon", "eve"] {
        writeln!(input, "{}", json!(["user", "create", "--username", name])).unwrap();
        let answer: Value = serde_json::from_str(&output.next().unwrap().unwrap()).unwrap();
        assert_eq!(answer["result"]["username"], name);
    }
    drop(input);
    assert!(batch.0.wait().unwrap().success());
}

#[tokio::test]
async fn a_worker_publishes_and_stops_when_told() {
    let database = Database::new().await;
    let redis = RedisServer::start();
    let mut command = control(&database, &["worker", "--internal-listen", "127.0.0.1:0"]);
    command.env("REDIS_URL", redis.url()).env("DIRECTORY_KEY", DIRECTORY_KEY).env("INTERNAL_CREDENTIAL", "secret");
    command.env("S3_ENDPOINT", "http://127.0.0.1:1").env("S3_BUCKET", "b");
    command.env("S3_ACCESS_KEY", "a").env("S3_SECRET_KEY", "s");
    let mut worker = Process(command.spawn().unwrap());
    let mut connection = redis.connection();
    let keys = [Key::directory(), Key::principals_complete()];
    let published = || keys.iter().all(|key| connection.exists::<_, bool>(key.as_str()).unwrap());
    until(PATIENCE, published).await;
    let told = Command::new("kill").arg("-TERM").arg(worker.0.id().to_string()).status().unwrap();
    assert!(told.success());
    assert!(worker.0.wait().unwrap().success());
}

#[tokio::test]
async fn a_worker_without_its_secrets_does_not_start() {
    let database = Database::new().await;
    let output = control(&database, &["worker"]).env_remove("DIRECTORY_KEY").output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8(output.stderr).unwrap().contains("--directory-key"));
}
