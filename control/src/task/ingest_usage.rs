//! Brings finished attempts from the usage stream into Postgres, each exactly once.

mod store;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use chrono::{DateTime, TimeDelta, Utc};
use protocol::record::batch::{Batch, RawEntry};
use protocol::record::ingest::{self, Arrived, Ends, Marks, Unstored, Wanted};
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

/// One run of it.
struct Run<'a> {
    duty: &'a IngestUsage,
    now: DateTime<Utc>,
    until: Instant,
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

    fn count(&self, stored: &Stored) {
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
    }
}

impl Ends for Run<'_> {
    type Error = anyhow::Error;

    fn has_time(&self) -> bool {
        Instant::now() < self.until
    }

    async fn marks(&self) -> anyhow::Result<Marks> {
        db::log_writers::list_marks(&self.duty.db, self.now - REMEMBERED).await.context("reading marks")
    }

    async fn replace_marks(&self, marks: &Marks) -> anyhow::Result<()> {
        self.duty.stream.replace_marks(marks).await
    }

    async fn read(&self, wanted: Wanted) -> anyhow::Result<Option<Arrived>> {
        let entries = self.duty.stream.read(wanted).await?;
        if entries.is_empty() {
            return Ok(None);
        }
        spawn_blocking(move || Arrived::new(entries)).await.context("reading a batch").map(Some)
    }

    async fn store(&self, batch: &Batch) -> Result<Marks, Unstored<anyhow::Error>> {
        match store(&self.duty.db, batch, self.now).await {
            Ok(stored) => {
                self.duty.count(&stored);
                Ok(stored.marks)
            }
            Err(error) if refuses_content(&error) => Err(Unstored::Refused(error)),
            Err(error) => Err(Unstored::Failed(error)),
        }
    }

    async fn publish_marks(&self, marks: &Marks) -> anyhow::Result<()> {
        self.duty.stream.publish_marks(marks).await
    }

    async fn let_go(&self, entries: &[RawEntry]) -> anyhow::Result<()> {
        self.duty.stream.acknowledge(entries).await
    }
}

impl Task for IngestUsage {
    const NAME: &'static str = "ingest_usage";
    const EVERY: Duration = Duration::ZERO;

    async fn run(&self, now: DateTime<Utc>) -> anyhow::Result<()> {
        let until = Instant::now() + RUN;
        self.make_partitions(now).await?;
        ingest::run(&Run { duty: self, now, until }).await
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
