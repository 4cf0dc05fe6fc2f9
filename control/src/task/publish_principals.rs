//! Publishes what gateways know of callers: each change in order, all of it when Redis does not have it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use chrono::{DateTime, Utc};
use protocol::ids::{ApiKeyId, UserId};
use protocol::principal::{Complete, Versioned};
use sqlx::PgPool;
use tracing::{info, warn};
use uuid::Uuid;

use super::Task;
use crate::clients::board::Board;
use crate::db;
use crate::db::outbox::{self, Change};
use crate::db::publications::{self, Publication};
use crate::metrics::Metrics;

/// Principals or changes published at once.
const BATCH: i64 = 500;

/// The duty.
pub struct PublishPrincipals {
    db: PgPool,
    board: Board,
    metrics: Arc<Metrics>,
}

impl PublishPrincipals {
    /// The duty.
    #[must_use]
    pub fn new(db: PgPool, board: Board, metrics: Arc<Metrics>) -> Self {
        Self { db, board, metrics }
    }

    /// Posts all principals and then says so; changes made meanwhile are posted in between.
    async fn fill(&self, redis_run: &str, forced: bool, now: DateTime<Utc>) -> anyhow::Result<()> {
        let mark = Uuid::new_v4().to_string();
        self.board.begin_filling(&mark).await?;
        let mut after = UserId(Uuid::nil());
        while let users = db::users::list_ids(&self.db, after, BATCH).await?
            && let Some(last) = users.last()
        {
            after = *last;
            let changes = users.into_iter().flat_map(|user| [Change::User(user), Change::Funds(user)]);
            self.post(&changes.collect::<Vec<_>>(), now).await?;
            self.post_changes(now).await?;
        }
        let mut after = ApiKeyId(Uuid::nil());
        while let keys = db::api_keys::list_ids(&self.db, after, BATCH).await?
            && let Some(last) = keys.last()
        {
            after = *last;
            self.post(&keys.into_iter().map(Change::Key).collect::<Vec<_>>(), now).await?;
            self.post_changes(now).await?;
        }
        let mut after = String::new();
        while let hotkeys = db::hotkeys::list(&self.db, &after, BATCH).await?
            && let Some(last) = hotkeys.last()
        {
            after = last.to_string();
            self.post(&hotkeys.into_iter().map(Change::Hotkey).collect::<Vec<_>>(), now).await?;
            self.post_changes(now).await?;
        }
        let complete = self.count(forced).await?;
        ensure!(self.board.finish_filling(&mark, &complete).await?, "redis was emptied while it was filled");
        publications::set_redis_run(&self.db, Publication::Principals, redis_run).await.context("remembering redis")?;
        self.metrics.principals_refilled.inc();
        let Complete { users, keys, .. } = complete.entry;
        info!(task = Self::NAME, users, keys, forced, "published all principals");
        Ok(())
    }

    /// Posts the changes that wait, oldest first; says whether users or keys were among them.
    async fn post_changes(&self, now: DateTime<Utc>) -> anyhow::Result<bool> {
        let mut counted = false;
        loop {
            let waiting = outbox::oldest(&self.db, BATCH).await.context("reading changes")?;
            let sequences: Vec<i64> = waiting.iter().map(|waiting| waiting.sequence).collect();
            let mut seen = HashSet::new();
            let changes = waiting.into_iter().map(|waiting| waiting.change);
            let changes: Vec<Change> = changes.filter(|change| seen.insert(change.clone())).collect();
            counted |= changes.iter().any(|change| matches!(change, Change::User(_) | Change::Key(_)));
            self.post(&changes, now).await?;
            outbox::remove(&self.db, &sequences).await.context("forgetting changes")?;
            if sequences.len() < usize::try_from(BATCH)? {
                return Ok(counted);
            }
        }
    }

    /// Posts principals as they are in Postgres now, in this order, even if Postgres was set back to an earlier time.
    async fn post(&self, changes: &[Change], now: DateTime<Utc>) -> anyhow::Result<()> {
        let older = self.try_post(changes, now).await?;
        let mut raised = 0_u64;
        for (change, held) in &older {
            raised += u64::from(db::principals::raise(&self.db, change, *held).await.context("raising a version")?);
        }
        if raised > 0 {
            warn!(
                task = Self::NAME,
                count = raised,
                "postgres was older than redis, raised the versions of principals"
            );
        }
        // All of them, not only those raised here: who raised one may have stopped before posting it.
        let again: Vec<Change> = older.into_iter().map(|(change, _)| change).collect();
        self.try_post(&again, now).await?;
        for change in changes {
            self.metrics.principals_published.with_label_values(&[change.kind()]).inc();
        }
        Ok(())
    }

    /// Posts principals and gives those of which Redis holds a newer version, with that version.
    async fn try_post(&self, changes: &[Change], now: DateTime<Utc>) -> anyhow::Result<Vec<(Change, u64)>> {
        let mut posted = Vec::with_capacity(changes.len());
        let mut postings = Vec::with_capacity(changes.len());
        for change in changes {
            if let Some(posting) = db::principals::find(&self.db, change, now).await.context("reading a principal")? {
                posted.push(change.clone());
                postings.push(posting);
            }
        }
        let held = self.board.post(&postings).await?;
        Ok(posted.into_iter().zip(held).filter_map(|(change, held)| Some((change, held?))).collect())
    }

    /// Counts the set of principals, under a new version.
    async fn count(&self, forced: bool) -> anyhow::Result<Versioned<Complete>> {
        let version = publications::next_version(&self.db, Publication::Principals, 0).await.context("a version")?;
        let users = db::users::count(&self.db).await.context("counting users")?;
        let keys = db::api_keys::count(&self.db).await.context("counting keys")?;
        Ok(Versioned { version, entry: Complete { users, keys, forced } })
    }
}

impl Task for PublishPrincipals {
    const NAME: &'static str = outbox::PUBLISHER;
    const EVERY: Duration = Duration::from_millis(200);

    async fn run(&self, now: DateTime<Utc>) -> anyhow::Result<()> {
        let state = publications::get(&self.db, Publication::Principals).await.context("reading the state")?;
        let redis_run = self.board.run_id().await?;
        let complete = self.board.complete().await?;
        // A statement follows its version's commit: it is ahead of the row only if Postgres was set back.
        if let Some(held) = complete.as_ref().map(|complete| complete.version)
            && held > state.version
            && publications::raise(&self.db, Publication::Principals, held).await.context("raising the version")?
        {
            warn!(task = Self::NAME, version = held, "postgres was older than redis, raised the version of the set");
        }
        let forced = state.forced(now);
        let stated = complete.map(|complete| complete.entry.forced);
        // Without the statement, or with a new word of the operator, everything is posted.
        if stated.is_none_or(|stated| forced && !stated) || state.redis_run.as_deref() != Some(redis_run.as_str()) {
            self.fill(&redis_run, forced, now).await?;
        }
        self.metrics.outbox_waiting.set(outbox::count(&self.db).await.context("counting changes")?);
        if self.post_changes(now).await? || (!forced && stated == Some(true)) {
            self.board.amend_complete(&self.count(forced).await?).await?;
        }
        Ok(())
    }
}
