//! Brings finished attempts from the usage stream into Postgres, each exactly once.

mod store;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use chrono::{DateTime, TimeDelta, Utc};
use protocol::ids::WriterId;
use protocol::record::batch::{Batch, RawEntry};
use sqlx::PgPool;
use tokio::sync::{Mutex, mpsc};
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tracing::{error, warn};

use super::Task;
use crate::clients::usage_stream::{UsageStream, Wanted};
use crate::db;
use crate::metrics::Metrics;

pub use store::{Stored, store};

/// How long one run goes on while there are entries; marks are published anew between runs.
const RUN: Duration = Duration::from_secs(3);
/// How often partitions are made ahead, or tried again.
const PARTITIONS_EVERY: Duration = Duration::from_secs(600);
/// How long the mark of a silent writer is published.
const REMEMBERED: TimeDelta = TimeDelta::days(7);

/// The duty.
pub struct IngestUsage {
    db: PgPool,
    stream: UsageStream,
    partitions_made: Mutex<Option<Instant>>,
    metrics: Arc<Metrics>,
}

/// Entries of one read, and what they say.
struct Arrived {
    entries: Vec<RawEntry>,
    batch: Batch,
}

/// Entries of which everything is stored, and where that leaves their writers.
struct Kept {
    entries: Vec<RawEntry>,
    marks: Vec<(WriterId, u64)>,
}

impl IngestUsage {
    /// The duty, with connections to Redis of its own.
    #[must_use]
    pub fn new(db: PgPool, stream: UsageStream, metrics: Arc<Metrics>) -> Self {
        Self { db, stream, partitions_made: Mutex::default(), metrics }
    }

    /// Makes partitions ahead. Ingestion does not wait for success: without a partition rows lie in the default one.
    async fn make_partitions(&self, now: DateTime<Utc>) -> anyhow::Result<()> {
        let mut made = self.partitions_made.lock().await;
        if made.is_some_and(|made| made.elapsed() < PARTITIONS_EVERY) {
            return Ok(());
        }
        let mut connection = self.db.acquire().await.context("asking for a connection")?;
        if let Err(error) = db::partitions::ensure(&mut connection, now).await {
            warn!(error = %error, "could not make all partitions of invocations, rows go to the default one meanwhile");
        }
        *made = Some(Instant::now());
        Ok(())
    }

    /// The next entries; none are left, or have come, when there are none.
    async fn read(&self, wanted: Wanted) -> anyhow::Result<Option<Arrived>> {
        let entries = self.stream.read(wanted).await?;
        if entries.is_empty() {
            return Ok(None);
        }
        // Thousands of records take milliseconds to read.
        let arrived = spawn_blocking(move || Arrived { batch: Batch::read(&entries), entries });
        arrived.await.context("reading a batch").map(Some)
    }

    /// Stores a batch, tells the writers, then lets go of the entries: a crash at any line repeats only what is harmless.
    async fn settle(&self, arrived: Arrived, now: DateTime<Utc>) -> anyhow::Result<()> {
        let kept = self.keep(arrived, now).await?;
        self.tell(kept).await
    }

    /// Stores a batch and counts what it brought.
    async fn keep(&self, arrived: Arrived, now: DateTime<Utc>) -> anyhow::Result<Kept> {
        let stored = self.store(&arrived, now).await?;
        self.metrics.ledger.inserted.inc_by(stored.inserted);
        self.metrics.ledger.repeated.inc_by(stored.repeated);
        self.metrics.ledger.contradicted.inc_by(stored.contradicted);
        self.metrics.ledger.rejected.inc_by(stored.rejected);
        if stored.contradicted > 0 {
            error!(
                count = stored.contradicted,
                "attempts were recorded twice with different content, the first stands"
            );
        }
        if stored.rejected > 0 {
            warn!(count = stored.rejected, "put unreadable usage entries aside");
        }
        Ok(Kept { entries: arrived.entries, marks: stored.marks })
    }

    /// Tells the writers of a batch how far they are stored, and lets go of its entries.
    async fn tell(&self, kept: Kept) -> anyhow::Result<()> {
        self.stream.publish_marks(&kept.marks).await?;
        self.stream.acknowledge(&kept.entries).await
    }

    /// Stores entries; halves those among which is one whose content Postgres refuses, until that one is put aside.
    async fn store(&self, arrived: &Arrived, now: DateTime<Utc>) -> anyhow::Result<Stored> {
        match store(&self.db, &arrived.batch, now).await {
            Err(refusal) if refuses_content(&refusal) => {}
            outcome => return outcome,
        }
        let mut all = Stored::default();
        let mut parts = vec![arrived.entries.as_slice()];
        while let Some(part) = parts.pop() {
            let stored = match (store(&self.db, &Batch::read(part), now).await, part) {
                (Err(refusal), [entry]) if refuses_content(&refusal) => {
                    store(&self.db, &Batch::rejecting(entry, &format!("{refusal:#}")), now).await?
                }
                (Err(refusal), part) if refuses_content(&refusal) => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                    continue;
                }
                (outcome, _) => outcome?,
            };
            all.add(stored);
        }
        Ok(all)
    }

    /// Settles what was delivered to an ingester that died, or to a run that failed; false when time is up.
    async fn settle_pending(&self, until: Instant, now: DateTime<Utc>) -> anyhow::Result<bool> {
        while let Some(arrived) = self.read(Wanted::Pending).await? {
            self.settle(arrived, now).await?;
            if Instant::now() >= until {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Stores what comes until none is left or time is up. The next batch is read while one is stored; should that
    /// fail, it is pending.
    async fn keep_new(&self, until: Instant, now: DateTime<Utc>, kept: mpsc::Sender<Kept>) -> anyhow::Result<()> {
        let mut next = self.read(Wanted::New).await?;
        while let Some(arrived) = next {
            let keep = async {
                let batch = self.keep(arrived, now).await?;
                kept.send(batch).await.context("nobody tells the writers")
            };
            let read = async { if Instant::now() < until { self.read(Wanted::New).await } else { Ok(None) } };
            let (done, read) = tokio::join!(keep, read);
            done?;
            next = read?;
        }
        Ok(())
    }

    /// Tells the writers of each batch, while the next is stored.
    async fn tell_all(&self, mut kept: mpsc::Receiver<Kept>) -> anyhow::Result<()> {
        while let Some(batch) = kept.recv().await {
            self.tell(batch).await?;
        }
        Ok(())
    }
}

impl Task for IngestUsage {
    const NAME: &'static str = "ingest_usage";
    const EVERY: Duration = Duration::ZERO;

    async fn run(&self, now: DateTime<Utc>) -> anyhow::Result<()> {
        let until = Instant::now() + RUN;
        self.make_partitions(now).await?;
        let marks = db::log_writers::list_marks(&self.db, now - REMEMBERED).await.context("reading marks")?;
        self.stream.replace_marks(&marks).await?;
        if !self.settle_pending(until, now).await? {
            return Ok(());
        }
        let (kept, to_tell) = mpsc::channel(1);
        tokio::try_join!(self.keep_new(until, now, kept), self.tell_all(to_tell)).map(drop)
    }
}

/// Whether Postgres will never take this content, as opposed to: not now.
fn refuses_content(error: &anyhow::Error) -> bool {
    match error.downcast_ref::<sqlx::Error>() {
        // Class 22: data exception, 23: constraint violation.
        Some(sqlx::Error::Database(error)) => {
            error.code().is_some_and(|code| code.starts_with("22") || code.starts_with("23"))
        }
        Some(sqlx::Error::Encode(_)) => true,
        Some(_) | None => false,
    }
}
