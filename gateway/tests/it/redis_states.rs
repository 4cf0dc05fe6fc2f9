//! The states in which a real Redis answers with errors or not at all, and the ways into them and out again.

use std::time::Duration;

use redis::{Connection, RedisResult, Value};

use crate::redis_server::RedisServer;

/// A state of a Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// `OOM`.
    WithoutMemory,
    /// `READONLY`.
    Replica,
    /// `MISCONF`.
    CannotSave,
    /// `NOPERM` for every script.
    WithoutScripts,
    /// `LOADING`.
    Loads,
    /// `BUSY`.
    Busy,
    /// `NOAUTH`, and no connection is left.
    KnowsNobody,
    /// Its clients are paused, for longer than any test looks.
    Paused,
    /// It stands still with its connections open.
    Silent,
}

/// The way out of a state.
type WayOut = Box<dyn FnOnce(&mut RedisServer) + Send>;

impl State {
    /// Brings a Redis into this state.
    pub(crate) fn begin(self, redis: &mut RedisServer) -> WayOut {
        let mut connection = redis.connection();
        match self {
            Self::WithoutMemory => {
                run(&mut connection, &["CONFIG", "SET", "maxmemory", "1"]).unwrap();
                refused(&mut connection, &["SET", "a", "b"], "OOM");
                and_then(&["CONFIG", "SET", "maxmemory", "0"])
            }
            Self::Replica => {
                run(&mut connection, &["REPLICAOF", "127.0.0.1", "1"]).unwrap();
                refused(&mut connection, &["SET", "a", "b"], "READONLY");
                and_then(&["REPLICAOF", "NO", "ONE"])
            }
            Self::CannotSave => {
                // A folder in the place of the file.
                std::fs::create_dir(redis.folder().join("dump.rdb")).unwrap();
                run(&mut connection, &["CONFIG", "SET", "save", "3600 1000000"]).unwrap();
                run(&mut connection, &["BGSAVE"]).unwrap();
                refused(&mut connection, &["SET", "a", "b"], "MISCONF");
                Box::new(|redis| {
                    run(&mut redis.connection(), &["CONFIG", "SET", "save", ""]).unwrap();
                    std::fs::remove_dir(redis.folder().join("dump.rdb")).unwrap();
                })
            }
            Self::WithoutScripts => {
                run(&mut connection, &["ACL", "SETUSER", "default", "-evalsha", "-eval"]).unwrap();
                refused(&mut connection, &["EVAL", "return 1", "0"], "NOPERM");
                and_then(&["ACL", "SETUSER", "default", "+@all"])
            }
            Self::Loads => loads(redis),
            Self::Busy => busy(redis),
            Self::KnowsNobody => {
                run(&mut connection, &["CONFIG", "SET", "requirepass", "changed"]).unwrap();
                run(&mut connection, &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).unwrap();
                assert!(redis::Client::open(redis.url()).unwrap().get_connection().is_err());
                Box::new(move |_| _ = run(&mut connection, &["CONFIG", "SET", "requirepass", ""]).unwrap())
            }
            Self::Paused => {
                run(&mut connection, &["CLIENT", "PAUSE", "7000", "ALL"]).unwrap();
                // Nothing ends it but time: a pause takes the command that would end it, too.
                Box::new(move |_| _ = run(&mut connection, &["PING"]).unwrap())
            }
            Self::Silent => {
                redis.freeze();
                Box::new(|redis| redis.thaw())
            }
        }
    }
}

/// Reads for seconds what it saved.
fn loads(redis: &mut RedisServer) -> WayOut {
    let mut connection = redis.connection();
    for number in 0..8000 {
        run(&mut connection, &["SET", &format!("filler:{number}"), "x"]).unwrap();
    }
    run(&mut connection, &["SAVE"]).unwrap();
    redis.kill();
    redis.restart_slowly();
    while redis::Client::open(redis.url()).unwrap().get_connection().is_err() {
        std::thread::sleep(Duration::from_millis(10));
    }
    refused(&mut redis.connection(), &["GET", "a"], "LOADING");
    Box::new(|redis| {
        let mut connection = redis.connection();
        run(&mut connection, &["CONFIG", "SET", "key-load-delay", "0"]).unwrap();
        while run(&mut connection, &["GET", "a"]).is_err() {
            std::thread::sleep(Duration::from_millis(10));
        }
        std::fs::remove_file(redis.folder().join("dump.rdb")).unwrap();
    })
}

/// Runs a script without end.
fn busy(redis: &mut RedisServer) -> WayOut {
    let (mut endless, mut other) = (redis.connection(), redis.connection());
    run(&mut other, &["CONFIG", "SET", "busy-reply-threshold", "50"]).unwrap();
    // Ends when the script is killed, with an error.
    std::thread::spawn(move || _ = run(&mut endless, &["EVAL", "while true do end", "0"]));
    refused(&mut other, &["GET", "a"], "BUSY");
    Box::new(move |_| _ = run(&mut other, &["SCRIPT", "KILL"]).unwrap())
}

/// Waits until a command is refused, so.
fn refused(redis: &mut Connection, words: &[&str], says: &str) {
    loop {
        if let Err(error) = run(redis, words) {
            assert!(error.to_string().to_uppercase().contains(says), "{error}");
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn and_then(words: &'static [&'static str]) -> WayOut {
    Box::new(move |redis| _ = run(&mut redis.connection(), words).unwrap())
}

fn run(redis: &mut Connection, words: &[&str]) -> RedisResult<Value> {
    redis::cmd(words[0]).arg(&words[1..]).query(redis)
}
