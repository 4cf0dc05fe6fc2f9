//! Brings finished attempts from the usage stream into Postgres, each exactly once.

mod store;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use chrono::{DateTime, TimeDelta, Utc};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use protocol::record::batch::Batch;
use protocol::record::ingest::{Arrived, Done, Ingest, Kept, Marks, Step};
use sqlx::PgPool;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tracing::{error, warn};

use super::Task;
use crate::clients::usage_stream::UsageStream;
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

    /// Takes a step of a run.
    async fn take(&self, step: Step, now: DateTime<Utc>) -> anyhow::Result<Done> {
        let (db, stream) = (&self.db, &self.stream);
        match step {
            Step::ReadMarks => {
                let marks = db::log_writers::list_marks(db, now - REMEMBERED).await;
                marks.context("reading marks").map(Done::Marks)
            }
            Step::ReplaceMarks(marks) => stream.replace_marks(&marks).await.map(|()| Done::Replaced),
            Step::Read(wanted) => {
                let entries = stream.read(wanted).await?;
                if entries.is_empty() {
                    return Ok(Done::Read(None));
                }
                // Thousands of records take milliseconds to read.
                let arrived = spawn_blocking(move || Arrived::new(entries)).await.context("reading a batch")?;
                Ok(Done::Read(Some(arrived)))
            }
            Step::Store(arrived) => {
                let marks = self.store(&arrived, now).await?;
                Ok(Done::Stored(Kept { entries: arrived.entries, marks }))
            }
            Step::Publish(marks) => stream.publish_marks(&marks).await.map(|()| Done::Published),
            Step::LetGo(entries) => stream.acknowledge(&entries).await.map(|()| Done::Gone),
        }
    }

    /// Stores entries; halves those among which is one whose content Postgres refuses, until that one is put aside.
    async fn store(&self, arrived: &Arrived, now: DateTime<Utc>) -> anyhow::Result<Marks> {
        match self.store_batch(&arrived.batch, now).await {
            Err(refusal) if refuses_content(&refusal) => {}
            outcome => return outcome,
        }
        let (mut marks, mut parts) = (Marks::new(), vec![arrived.entries.as_slice()]);
        while let Some(part) = parts.pop() {
            let stored = match (self.store_batch(&Batch::read(part), now).await, part) {
                (Err(refusal), [entry]) if refuses_content(&refusal) => {
                    self.store_batch(&Batch::rejecting(entry, &format!("{refusal:#}")), now).await
                }
                (Err(refusal), part) if refuses_content(&refusal) => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                    continue;
                }
                (stored, _) => stored,
            };
            marks.extend(stored?);
        }
        Ok(marks)
    }

    /// Stores a batch and counts what it brought; the marks of its writers.
    async fn store_batch(&self, batch: &Batch, now: DateTime<Utc>) -> anyhow::Result<Marks> {
        let stored = store(&self.db, batch, now).await?;
        let counted = &self.metrics.ledger;
        counted.inserted.inc_by(stored.inserted);
        counted.repeated.inc_by(stored.repeated);
        counted.contradicted.inc_by(stored.contradicted);
        counted.rejected.inc_by(stored.rejected);
        if stored.contradicted > 0 {
            error!(
                count = stored.contradicted,
                "attempts were recorded twice with different content, the first stands"
            );
        }
        if stored.rejected > 0 {
            warn!(count = stored.rejected, "put unreadable usage entries aside");
        }
        Ok(stored.marks)
    }
}

impl Task for IngestUsage {
    const NAME: &'static str = "ingest_usage";
    const EVERY: Duration = Duration::ZERO;

    async fn run(&self, now: DateTime<Utc>) -> anyhow::Result<()> {
        let until = Instant::now() + RUN;
        self.make_partitions(now).await?;
        let (mut run, mut under_way) = (Ingest::default(), FuturesUnordered::new());
        loop {
            while let Some(step) = run.next(Instant::now() < until) {
                under_way.push(self.take(step, now));
            }
            match under_way.next().await {
                Some(done) => run.done(done?),
                None => return Ok(()),
            }
        }
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
