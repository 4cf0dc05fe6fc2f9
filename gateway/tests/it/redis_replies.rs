//! A Redis that answers with errors: calls of known callers go on, nothing is lost, and it heals without help.
//!
//! Each error is a real one of a real Redis that was brought into its state.

use std::collections::BTreeSet;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use protocol::credential::ApiKey;
use protocol::ids::UserId;
use redis::{Connection, Value};

use crate::client::{Raw, ask};
use crate::instance::{Act, Scripted};
use crate::platform::{DOMAIN, Platform, Wishes};

/// How long each state lasts at least: longer than any time that the gateway waits for an answer of Redis.
const LASTS: Duration = Duration::from_secs(3);
/// How soon after it everything is as before.
const HEALED_WITHIN: Duration = Duration::from_secs(15);

/// What a test does to Redis.
struct Fault {
    /// How an answer begins then.
    says: &'static str,
    /// A command that is answered so.
    to: &'static [&'static str],
    /// Whether principals can still be read.
    reads: bool,
}

fn command(redis: &mut Connection, words: &[&str]) -> redis::RedisResult<Value> {
    redis::cmd(words[0]).arg(&words[1..]).query(redis)
}

async fn call(platform: &Platform) -> u16 {
    ask(platform, "POST", "own-chute", "/run", "{}").await.status
}

/// The answer to somebody whom the gateway has not seen, with a key that was never made.
async fn stranger(platform: &Platform) -> u16 {
    let key = ApiKey::generate(UserId::random());
    let mut raw = Raw::connect(platform).await;
    let head = format!(
        "POST /run HTTP/1.1\r\nHost: own-chute.{DOMAIN}\r\nAuthorization: {}\r\nContent-Length: 2\r\n\r\n{{}}",
        key.reveal()
    );
    raw.send(head.as_bytes()).await;
    raw.answer().await.status
}

/// Brings Redis into a state and out of it again, under calls.
async fn endures(fault: Fault, begin: impl FnOnce(&mut Platform), end: impl FnOnce(&mut Platform)) {
    let scripted = Scripted::start([Act::Json("1".into())]).await;
    let mut platform = Platform::start(&[&scripted], Wishes::default()).await;
    assert_eq!((call(&platform).await, stranger(&platform).await), (200, 401));
    let mut calls = 1;
    begin(&mut platform);
    let begun = Instant::now();
    if !fault.says.is_empty() {
        let mut redis = platform.redis.connection();
        let said = command(&mut redis, fault.to).expect_err("the state was reached").to_string();
        assert!(said.to_uppercase().contains(fault.says), "{said}");
    }
    while begun.elapsed() < LASTS {
        assert_eq!(call(&platform).await, 200, "after {:?}", begun.elapsed());
        calls += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(stranger(&platform).await, if fault.reads { 401 } else { 503 });
    end(&mut platform);
    let healed_by = Instant::now() + HEALED_WITHIN;
    while stranger(&platform).await != 401 {
        assert!(Instant::now() < healed_by, "strangers are not told apart again");
    }
    assert_eq!(call(&platform).await, 200);
    calls += 1;
    let recorded_by = Instant::now() + HEALED_WITHIN;
    loop {
        // What Redis did not confirm is sent again; the ingester counts it once.
        let records = platform.records(calls).await;
        let calls_recorded: BTreeSet<String> =
            records.iter().map(|record| record.admission.invocation.to_string()).collect();
        assert!(calls_recorded.len() <= calls, "calls that nobody made");
        if calls_recorded.len() == calls {
            return;
        }
        assert!(Instant::now() < recorded_by, "{} of {calls} calls are recorded", calls_recorded.len());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn admin(words: &'static [&'static str]) -> impl FnOnce(&mut Platform) {
    move |platform| _ = command(&mut platform.redis.connection(), words).unwrap()
}

#[tokio::test]
async fn a_redis_without_memory_is_waited_for() {
    // Within a transaction, in which principals are read, Redis without memory takes no command at all.
    let fault = Fault { says: "OOM", to: &["SET", "a", "b"], reads: false };
    endures(fault, admin(&["CONFIG", "SET", "maxmemory", "1"]), admin(&["CONFIG", "SET", "maxmemory", "0"])).await;
}

#[tokio::test]
async fn a_redis_that_became_a_replica_delays_records_and_nothing_else() {
    let fault = Fault { says: "READONLY", to: &["SET", "a", "b"], reads: true };
    endures(fault, admin(&["REPLICAOF", "127.0.0.1", "1"]), admin(&["REPLICAOF", "NO", "ONE"])).await;
}

#[tokio::test]
async fn a_redis_that_cannot_save_delays_records_and_nothing_else() {
    let fault = Fault { says: "MISCONF", to: &["SET", "a", "b"], reads: true };
    let begin = |platform: &mut Platform| {
        // A folder in the place of the file.
        std::fs::create_dir(platform.redis.folder().join("dump.rdb")).unwrap();
        let mut redis = platform.redis.connection();
        command(&mut redis, &["CONFIG", "SET", "save", "3600 1000000"]).unwrap();
        command(&mut redis, &["BGSAVE"]).unwrap();
        while command(&mut redis, &["SET", "a", "b"]).is_ok() {
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    endures(fault, begin, admin(&["CONFIG", "SET", "save", ""])).await;
}

#[tokio::test]
async fn a_redis_that_loads_its_data_is_waited_for() {
    let fault = Fault { says: "LOADING", to: &["GET", "a"], reads: false };
    let begin = |platform: &mut Platform| {
        let mut redis = platform.redis.connection();
        for number in 0..8000 {
            command(&mut redis, &["SET", &format!("filler:{number}"), "x"]).unwrap();
        }
        command(&mut redis, &["SAVE"]).unwrap();
        platform.redis.kill();
        platform.redis.restart_slowly();
        while redis::Client::open(platform.redis.url()).unwrap().get_connection().is_err() {
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    endures(fault, begin, |_| {}).await;
}

#[tokio::test]
async fn a_redis_that_is_busy_is_waited_for() {
    let fault = Fault { says: "", to: &[], reads: false };
    let (send, receive) = mpsc::channel();
    let begin = move |platform: &mut Platform| {
        let mut redis = platform.redis.connection();
        command(&mut redis, &["CONFIG", "SET", "busy-reply-threshold", "50"]).unwrap();
        let mut other = platform.redis.connection();
        // Ends when the script is killed.
        std::thread::spawn(move || _ = command(&mut redis, &["EVAL", "while true do end", "0"]));
        while !command(&mut other, &["GET", "a"]).is_err_and(|error| error.to_string().to_uppercase().contains("BUSY"))
        {
            std::thread::sleep(Duration::from_millis(10));
        }
        send.send(other).unwrap();
    };
    let end = move |_: &mut Platform| _ = command(&mut receive.recv().unwrap(), &["SCRIPT", "KILL"]).unwrap();
    endures(fault, begin, end).await;
}

#[tokio::test]
async fn a_redis_that_does_not_know_the_gateway_any_more_is_waited_for() {
    let fault = Fault { says: "", to: &[], reads: false };
    let (send, receive) = mpsc::channel();
    let begin = move |platform: &mut Platform| {
        let mut redis = platform.redis.connection();
        command(&mut redis, &["CONFIG", "SET", "requirepass", "changed"]).unwrap();
        command(&mut redis, &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).unwrap();
        assert!(redis::Client::open(platform.redis.url()).unwrap().get_connection().is_err());
        send.send(redis).unwrap();
    };
    let end = move |_: &mut Platform| {
        _ = command(&mut receive.recv().unwrap(), &["CONFIG", "SET", "requirepass", ""]).unwrap();
    };
    endures(fault, begin, end).await;
}

#[tokio::test]
async fn a_redis_that_pauses_its_clients_is_waited_for() {
    let fault = Fault { says: "", to: &[], reads: false };
    endures(fault, admin(&["CLIENT", "PAUSE", "6000", "ALL"]), |_| {}).await;
}

#[tokio::test]
async fn a_redis_that_takes_bytes_and_says_nothing_is_waited_for() {
    let fault = Fault { says: "", to: &[], reads: false };
    endures(fault, |platform| platform.redis.freeze(), |platform| platform.redis.thaw()).await;
}
