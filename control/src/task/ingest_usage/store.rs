//! Stores a batch of usage entries in one transaction: attempts, counts and marks together or not at all.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use anyhow::Context;
use chrono::{DateTime, TimeDelta, Utc};
use protocol::ids::{ChuteId, UserId, WriterId};
use protocol::record::batch::Batch;
use protocol::record::ledger::{self, LogWriter};
use sqlx::{PgConnection, PgPool};

use crate::db;
use crate::db::invocations::NewInvocation;
use crate::domain::export_hour::ExportHour;
use crate::domain::settlement;

/// How old the first hour of the platform may be, whatever a gateway's clock says.
const OLDEST_START: TimeDelta = TimeDelta::hours(24);

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

/// Which attempts are looked up before the others are inserted.
#[derive(Clone, Copy)]
enum Lookup {
    /// Those that their writer's mark says are stored.
    Marked,
    /// All.
    All,
}

/// Writers whose rows are locked.
type Writers = BTreeMap<WriterId, LogWriter>;

/// Stores a batch in one transaction.
///
/// # Errors
/// When Postgres is away or refuses a value; then nothing of the batch is stored.
pub async fn store(db: &PgPool, batch: &Batch, now: DateTime<Utc>) -> anyhow::Result<Stored> {
    if let Some(stored) = try_store(db, batch, Lookup::Marked, now).await? {
        return Ok(stored);
    }
    // Rare, and worth a second transaction: almost never is what lies above a mark stored already.
    let stored = try_store(db, batch, Lookup::All, now).await?;
    stored.context("attempts appeared under the lock of their chute")
}

/// Gives nothing, and stores nothing, when an attempt that was not looked up is in the table.
async fn try_store(db: &PgPool, batch: &Batch, lookup: Lookup, now: DateTime<Utc>) -> anyhow::Result<Option<Stored>> {
    let mut transaction = db.begin().await.context("beginning a transaction")?;
    let connection = &mut *transaction;
    let oldest_open = oldest_open_hour(connection, batch, now).await.context("finding the open hour")?;
    let mut writers = lock_writers(connection, batch, now).await.context("locking writers")?;
    let Some(mut stored) = store_attempts(connection, batch, &writers, lookup, oldest_open, now).await? else {
        transaction.rollback().await.context("undoing a batch")?;
        return Ok(None);
    };
    if !batch.rejects.is_empty() {
        stored.rejected = db::usage_rejects::insert(&mut *connection, &batch.rejects, now).await?;
    }
    if !writers.is_empty() {
        ledger::advance(batch, &mut writers);
        db::log_writers::update(connection, &writers, now).await.context("advancing marks")?;
        stored.marks = writers.into_iter().map(|(writer, known)| (writer, known.mark)).collect();
    }
    transaction.commit().await.context("committing a batch")?;
    Ok(Some(stored))
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

/// Locks the batch's writers until the commit.
async fn lock_writers(db: &mut PgConnection, batch: &Batch, now: DateTime<Utc>) -> sqlx::Result<Writers> {
    let writers: Vec<WriterId> = batch.sequences().into_keys().collect();
    if writers.is_empty() {
        return Ok(Writers::new());
    }
    let first_heard = batch.earliest().unwrap_or(now).min(now);
    db::log_writers::lock(db, &writers, first_heard, now).await
}

/// Inserts the attempts that are new and counts them; their chutes stay locked until the commit.
async fn store_attempts(
    db: &mut PgConnection,
    batch: &Batch,
    writers: &Writers,
    lookup: Lookup,
    oldest_open: ExportHour,
    now: DateTime<Utc>,
) -> anyhow::Result<Option<Stored>> {
    let first = batch.first_finals();
    if first.0.is_empty() {
        return Ok(Some(Stored::default()));
    }
    let chutes: BTreeSet<ChuteId> = first.0.iter().map(|entry| entry.record.admission.chute).collect();
    let mut paces = db::pace::lock(db, &chutes.into_iter().collect::<Vec<_>>()).await.context("locking averages")?;
    // Under the locks: another ingester's attempts of these chutes are visible from here on.
    let asked = match lookup {
        Lookup::Marked => ledger::marked(&first.0, writers),
        Lookup::All => first.0.clone(),
    };
    let asked: Vec<_> = asked.into_iter().map(|entry| entry.attempt()).collect();
    let held: HashMap<_, _> = db::invocations::hashes(&mut *db, &asked).await?.into_iter().collect();
    let found = ledger::attempts(batch, first, |attempt| held.get(attempt).map(Vec::as_slice));
    let mut rows = Vec::with_capacity(found.new.len());
    for entry in found.new {
        let record = &entry.record;
        let pace = paces.get_mut(&record.admission.chute).context("a chute without averages")?;
        rows.push(NewInvocation {
            content_hash: entry.hash,
            error: settlement::unpaid_reason(record),
            metrics: pace.measure(record),
            export_hour: ExportHour::of_row(record.completed_at, oldest_open, now),
            record,
        });
    }
    if !db::invocations::insert(&mut *db, &rows).await.context("inserting")? {
        return Ok(None);
    }
    db::pace::update(db, &paces).await.context("writing averages")?;
    count(db, &rows).await.context("counting")?;
    let inserted = rows.len() as u64;
    Ok(Some(Stored { inserted, contradicted: found.contradicted, repeated: found.repeated, ..Stored::default() }))
}

/// Adds new attempts to what is counted and has the funds of their users published.
async fn count(db: &mut PgConnection, rows: &[NewInvocation<'_>]) -> sqlx::Result<()> {
    let mut allowances = BTreeMap::new();
    let mut chutes: BTreeMap<ChuteId, i64> = BTreeMap::new();
    let mut users: BTreeSet<UserId> = BTreeSet::new();
    for row in rows {
        users.insert(row.record.admission.user);
        if row.error.is_none() {
            *chutes.entry(row.record.admission.chute).or_default() += 1;
        }
        if let Some(allowance) = settlement::allowance(row.record) {
            *allowances.entry(allowance).or_default() += 1;
        }
    }
    db::quota_usage::add(&mut *db, &allowances).await?;
    db::chute_calls::add(&mut *db, &chutes).await?;
    db::balances::touch(db, &users.into_iter().collect::<Vec<_>>()).await
}
