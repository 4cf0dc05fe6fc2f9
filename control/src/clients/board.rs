//! The board in Redis that gateways read: principals and the directory snapshot.

use std::collections::HashMap;

use anyhow::Context;
use protocol::directory::Header;
use protocol::keys::Key;
use protocol::principal::{Complete, Versioned, WRITE_SCRIPT};
use redis::aio::ConnectionManager;
use redis::{AsyncCommands, InfoDict, Pipeline, Script};

use crate::domain::posting::Posting;

/// Lua: writes `principals:complete` only if Redis still has this filling's mark.
const FINISH_SCRIPT: &str = "\
if redis.call('GET', KEYS[2]) ~= ARGV[3] then return 0 end
redis.call('DEL', KEYS[2])
redis.call('HSET', KEYS[1], 'v', ARGV[1], 'd', ARGV[2])
return 1";

/// Lua: replaces `principals:complete` by a newer one, but never makes it anew.
const AMEND_SCRIPT: &str = "\
local held = redis.call('HGET', KEYS[1], 'v')
if not held or tonumber(held) > tonumber(ARGV[1]) then return 0 end
redis.call('HSET', KEYS[1], 'v', ARGV[1], 'd', ARGV[2])
return 1";

/// Lua: writes a snapshot and announces it unless a newer one is there.
const SNAPSHOT_SCRIPT: &str = "\
local held = redis.call('GETRANGE', KEYS[1], 0, 1023)
local version = string.match(held, '^{\"version\":(%d+)')
if version and tonumber(version) > tonumber(ARGV[1]) then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
redis.call('PUBLISH', KEYS[2], ARGV[1])
return 1";

/// Bytes at the start of a snapshot that hold its header.
const HEADER_LENGTH: isize = 1024;
/// Seconds after which the mark of a filling that was given up disappears.
const FILLING_SECONDS: u64 = 600;

/// The board.
#[derive(Clone)]
pub struct Board {
    connection: ConnectionManager,
}

impl Board {
    /// The board behind a connection.
    #[must_use]
    pub fn new(connection: ConnectionManager) -> Self {
        Self { connection }
    }

    /// Identifies the running Redis; another one may have forgotten what was posted.
    ///
    /// # Errors
    /// When Redis is away.
    pub async fn run_id(&self) -> anyhow::Result<String> {
        let mut connection = self.connection.clone();
        let info: InfoDict =
            redis::cmd("INFO").arg("server").query_async(&mut connection).await.context("asking redis")?;
        info.get("run_id").context("redis does not say its run id")
    }

    /// What Redis says about the set of principals; `None` when it may miss some.
    ///
    /// # Errors
    /// When Redis is away.
    pub async fn complete(&self) -> anyhow::Result<Option<Versioned<Complete>>> {
        let mut connection = self.connection.clone();
        let key = Key::principals_complete();
        let fields: HashMap<String, String> = connection.hgetall(key.as_str()).await.context("reading the board")?;
        // An unreadable statement is none: the set is posted anew.
        Ok(Versioned::from_fields(&fields).ok().flatten())
    }

    /// Posts principals and gives for each the newer version that stayed, if one did.
    ///
    /// # Errors
    /// When Redis is away.
    pub async fn post(&self, postings: &[Posting]) -> anyhow::Result<Vec<Option<u64>>> {
        if postings.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipeline = Pipeline::with_capacity(postings.len());
        for posting in postings {
            let command = pipeline.cmd("EVAL").arg(WRITE_SCRIPT).arg(1).arg(posting.key.as_str());
            command.arg(posting.version).arg(&posting.entry);
        }
        let stayed: Vec<u64> =
            pipeline.query_async(&mut self.connection.clone()).await.context("posting principals")?;
        Ok(stayed.into_iter().map(|version| (version > 0).then_some(version)).collect())
    }

    /// Says that misses no longer mean anything and marks the filling that begins.
    ///
    /// # Errors
    /// When Redis is away.
    pub async fn begin_filling(&self, mark: &str) -> anyhow::Result<()> {
        let mut pipeline = redis::pipe();
        pipeline.atomic().del(Key::principals_complete().as_str()).ignore();
        pipeline.set_ex(Key::principals_filling().as_str(), mark, FILLING_SECONDS).ignore();
        pipeline.exec_async(&mut self.connection.clone()).await.context("beginning to fill the board")
    }

    /// Says that every principal is on the board; `false` when Redis was emptied since the filling began.
    ///
    /// # Errors
    /// When Redis is away.
    pub async fn finish_filling(&self, mark: &str, complete: &Versioned<Complete>) -> anyhow::Result<bool> {
        let [(_, version), (_, entry)] = complete.to_fields();
        let script = Script::new(FINISH_SCRIPT);
        let mut call = script.key(Key::principals_complete().as_str());
        call.key(Key::principals_filling().as_str()).arg(version).arg(entry).arg(mark);
        call.invoke_async(&mut self.connection.clone()).await.context("finishing to fill the board")
    }

    /// Corrects what is said about the set of principals; `false` when Redis was emptied or got a newer word meanwhile.
    ///
    /// # Errors
    /// When Redis is away.
    pub async fn amend_complete(&self, complete: &Versioned<Complete>) -> anyhow::Result<bool> {
        let [(_, version), (_, entry)] = complete.to_fields();
        let script = Script::new(AMEND_SCRIPT);
        let mut call = script.key(Key::principals_complete().as_str());
        call.arg(version).arg(entry);
        call.invoke_async(&mut self.connection.clone()).await.context("correcting the board")
    }

    /// Header of the snapshot on the board; `None` when there is none that can be read.
    ///
    /// # Errors
    /// When Redis is away.
    pub async fn snapshot(&self) -> anyhow::Result<Option<Header>> {
        let mut connection = self.connection.clone();
        let start: Vec<u8> =
            connection.getrange(Key::directory().as_str(), 0, HEADER_LENGTH - 1).await.context("reading the board")?;
        let line = start.split(|byte| *byte == b'\n').next().unwrap_or_default();
        Ok(serde_json::from_slice(line).ok())
    }

    /// Posts a snapshot and announces it; `false` when a newer one is there.
    ///
    /// # Errors
    /// When Redis is away.
    pub async fn post_snapshot(&self, version: u64, text: &str) -> anyhow::Result<bool> {
        let script = Script::new(SNAPSHOT_SCRIPT);
        let mut call = script.key(Key::directory().as_str());
        call.key(Key::directory_changed().as_str()).arg(version).arg(text);
        call.invoke_async(&mut self.connection.clone()).await.context("posting the directory")
    }
}
