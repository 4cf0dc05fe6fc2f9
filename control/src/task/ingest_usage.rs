//! Brings finished attempts from the usage stream into Postgres, each exactly once.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use chrono::{DateTime, TimeDelta, Utc};
use protocol::ids::{ChuteId, UserId, WriterId};
use protocol::record::batch::{Batch, RawEntry};
use protocol::record::ledger;
use sqlx::{PgConnection, PgPool};
use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::{error, warn};

use super::Task;
use crate::clients::usage_stream::{UsageStream, Wanted};
use crate::db;
use crate::db::invocations::NewInvocation;
use crate::domain::export_hour::ExportHour;
use crate::domain::settlement;
use crate::metrics::Metrics;

/// How long one run goes on while there are entries; marks are published anew between runs.
const RUN: Duration = Duration::from_secs(1);
/// How often partitions are made ahead, or tried again.
const PARTITIONS_EVERY: Duration = Duration::from_secs(600);
/// How long the mark of a silent writer is published.
const REMEMBERED: TimeDelta = TimeDelta::days(7);
/// How old the first hour of the platform may be, whatever a gateway's clock says.
const OLDEST_START: TimeDelta = TimeDelta::hours(24);

/// The duty.
pub struct IngestUsage {
    db: PgPool,
    stream: Mutex<UsageStream>,
    partitions_made: Mutex<Option<Instant>>,
    metrics: Arc<Metrics>,
}

/// What a stored batch brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// Attempts that are new.
    pub inserted: u64,
    /// Attempts that were there already and said the same.
    pub repeated: u64,
    /// Attempts that were there already and said something else.
    pub contradicted: u64,
    /// Unreadable entries that are new.
    pub rejected: u64,
    /// The writers' marks afterwards.
    pub marks: Vec<(WriterId, u64)>,
}

impl IngestUsage {
    /// The duty, with a connection to Redis of its own.
    #[must_use]
    pub fn new(db: PgPool, stream: UsageStream, metrics: Arc<Metrics>) -> Self {
        Self { db, stream: Mutex::new(stream), partitions_made: Mutex::default(), metrics }
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

    /// Stores a batch, tells the writers, then lets go of the entries: a crash at any line repeats only what is harmless.
    async fn settle(&self, stream: &mut UsageStream, entries: &[RawEntry], now: DateTime<Utc>) -> anyhow::Result<()> {
        let stored = self.store(entries, now).await?;
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
        stream.publish_marks(&stored.marks).await?;
        stream.acknowledge(entries).await
    }

    /// Stores entries; those whose content Postgres refuses are put aside one by one.
    async fn store(&self, entries: &[RawEntry], now: DateTime<Utc>) -> anyhow::Result<Stored> {
        match store(&self.db, &Batch::read(entries), now).await {
            Err(refusal) if refuses_content(&refusal) => {}
            outcome => return outcome,
        }
        let mut all = Stored::default();
        for entry in entries {
            let stored = match store(&self.db, &Batch::read(std::slice::from_ref(entry)), now).await {
                Err(refusal) if refuses_content(&refusal) => {
                    store(&self.db, &Batch::rejecting(entry, &format!("{refusal:#}")), now).await
                }
                outcome => outcome,
            };
            all.add(stored?);
        }
        Ok(all)
    }
}

impl Task for IngestUsage {
    const NAME: &'static str = "ingest_usage";
    const EVERY: Duration = Duration::ZERO;

    async fn run(&self, now: DateTime<Utc>) -> anyhow::Result<()> {
        let until = Instant::now() + RUN;
        let mut stream = self.stream.lock().await;
        self.make_partitions(now).await?;
        let marks = db::log_writers::list_marks(&self.db, now - REMEMBERED).await.context("reading marks")?;
        stream.replace_marks(&marks).await?;
        for wanted in [Wanted::Pending, Wanted::New] {
            loop {
                let entries = stream.read(wanted).await?;
                if entries.is_empty() {
                    break;
                }
                self.settle(&mut stream, &entries, now).await?;
                if Instant::now() >= until {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

impl Stored {
    fn add(&mut self, other: Self) {
        self.inserted += other.inserted;
        self.repeated += other.repeated;
        self.contradicted += other.contradicted;
        self.rejected += other.rejected;
        self.marks.extend(other.marks);
    }
}

/// Stores a batch in one transaction.
///
/// # Errors
/// When Postgres is away or refuses a value; then nothing of the batch is stored.
pub async fn store(db: &PgPool, batch: &Batch, now: DateTime<Utc>) -> anyhow::Result<Stored> {
    let mut transaction = db.begin().await.context("beginning a transaction")?;
    let connection = &mut *transaction;
    let oldest_open = oldest_open_hour(connection, batch, now).await.context("finding the open hour")?;
    let mut stored = store_attempts(connection, batch, oldest_open, now).await?;
    if !batch.rejects.is_empty() {
        stored.rejected = db::usage_rejects::insert(&mut *connection, &batch.rejects, now).await?;
    }
    stored.marks = advance_marks(connection, batch, now).await.context("advancing marks")?;
    transaction.commit().await.context("committing a batch")?;
    Ok(stored)
}

/// Keeps hours from closing until the commit; the first batch ever opens the first hour.
async fn oldest_open_hour(db: &mut PgConnection, batch: &Batch, now: DateTime<Utc>) -> anyhow::Result<ExportHour> {
    if let Some(hour) = db::exports::hold_frontier(db).await? {
        return Ok(hour);
    }
    let first = batch.earliest().unwrap_or(now).clamp(now - OLDEST_START, now);
    db::exports::open_first(db, ExportHour::holding(first)).await?;
    db::exports::hold_frontier(db).await?.context("there is no open hour")
}

/// Inserts the attempts that are new and counts them; their chutes stay locked until the commit.
async fn store_attempts(
    db: &mut PgConnection,
    batch: &Batch,
    oldest_open: ExportHour,
    now: DateTime<Utc>,
) -> anyhow::Result<Stored> {
    let first = batch.first_finals();
    let finals = &first.0;
    if finals.is_empty() {
        return Ok(Stored::default());
    }
    let chutes: BTreeSet<ChuteId> = finals.iter().map(|entry| entry.record.admission.chute).collect();
    let mut paces = db::pace::lock(db, &chutes.into_iter().collect::<Vec<_>>()).await.context("locking averages")?;
    // Under the locks: another ingester's attempts of these chutes are visible from here on.
    let attempts: Vec<_> = finals.iter().map(|entry| entry.attempt()).collect();
    let held: HashMap<_, _> = db::invocations::hashes(&mut *db, &attempts).await?.into_iter().collect();
    let found = ledger::attempts(batch, first, |attempt| held.get(attempt).map(Vec::as_slice));
    let mut rows = Vec::new();
    for entry in found.new {
        let record = &entry.record;
        let pace = paces.get_mut(&record.admission.chute).context("a chute without averages")?;
        rows.push(NewInvocation {
            content_hash: entry.hash,
            error: settlement::unpaid_reason(record),
            metrics: pace.measure(record),
            export_hour: ExportHour::of_row(record.completed_at, oldest_open, now),
            record: record.clone(),
        });
    }
    let inserted: HashSet<_> =
        db::invocations::insert(&mut *db, &rows).await.context("inserting")?.into_iter().collect();
    ensure!(inserted.len() == rows.len(), "attempts appeared under the lock of their chute");
    db::pace::update(db, &paces).await.context("writing averages")?;
    count(db, &rows).await.context("counting")?;
    Ok(Stored {
        inserted: rows.len() as u64,
        contradicted: found.contradicted,
        repeated: found.repeated,
        ..Stored::default()
    })
}

/// Adds new attempts to what is counted and has the funds of their users published.
async fn count(db: &mut PgConnection, rows: &[NewInvocation]) -> sqlx::Result<()> {
    let mut allowances = BTreeMap::new();
    let mut chutes: BTreeMap<ChuteId, i64> = BTreeMap::new();
    let mut users: BTreeSet<UserId> = BTreeSet::new();
    for row in rows {
        users.insert(row.record.admission.user);
        if row.error.is_none() {
            *chutes.entry(row.record.admission.chute).or_default() += 1;
        }
        if let Some(allowance) = settlement::allowance(&row.record) {
            *allowances.entry(allowance).or_default() += 1;
        }
    }
    db::quota_usage::add(&mut *db, &allowances).await?;
    db::chute_calls::add(&mut *db, &chutes).await?;
    db::balances::touch(db, &users.into_iter().collect::<Vec<_>>()).await
}

/// Moves the marks and clocks of the batch's writers.
async fn advance_marks(
    db: &mut PgConnection,
    batch: &Batch,
    now: DateTime<Utc>,
) -> anyhow::Result<Vec<(WriterId, u64)>> {
    let writers: Vec<WriterId> = batch.sequences().into_keys().collect();
    if writers.is_empty() {
        return Ok(Vec::new());
    }
    let first_heard = batch.earliest().unwrap_or(now).min(now);
    let mut held = db::log_writers::lock(db, &writers, first_heard, now).await?;
    ledger::advance(batch, &mut held);
    db::log_writers::update(db, &held, now).await?;
    Ok(held.into_iter().map(|(writer, known)| (writer, known.mark)).collect())
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
