//! Closes hours and writes their files; which bytes a file has depends on its rows alone.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use chrono::{DateTime, Utc};
use futures::TryStreamExt as _;
use protocol::record::hours;
use sha2::{Digest as _, Sha256};
use sqlx::{PgConnection, PgPool};
use tempfile::NamedTempFile;
use tokio::fs::File;
use tokio::io::AsyncWriteExt as _;
use tracing::info;

use super::Task;
use crate::clients::store::Store;
use crate::db;
use crate::domain::export::{INVOCATION_COLUMNS, JOB_COLUMNS, REPORT_COLUMNS, Sheet};
use crate::domain::export_hour::{ExportHour, ExportKind};
use crate::metrics::Metrics;

/// Lines held in memory at once.
const LINES: i64 = 1_000;

/// The duty.
pub struct ExportHours {
    db: PgPool,
    store: Store,
    metrics: Arc<Metrics>,
}

/// A file on its way to the store.
struct Draft {
    file: File,
    digest: Sha256,
    sheet: Sheet,
    rows: i64,
}

impl ExportHours {
    /// The duty.
    #[must_use]
    pub fn new(db: PgPool, store: Store, metrics: Arc<Metrics>) -> Self {
        Self { db, store, metrics }
    }

    /// Closes every hour that may close: no row gets it any more.
    async fn close_hours(&self, now: DateTime<Utc>) -> anyhow::Result<()> {
        loop {
            let mut transaction = self.db.begin().await.context("beginning a transaction")?;
            let Some(hour) = db::exports::lock_frontier(&mut transaction).await? else { return Ok(()) };
            self.metrics.ledger.open_hour.set(hour.end().timestamp());
            let writers = db::log_writers::list_open(&mut *transaction).await?;
            if !hours::may_close(hour.end(), now, writers) {
                return Ok(());
            }
            db::exports::close(&mut transaction, hour, now).await?;
            transaction.commit().await.context("closing an hour")?;
            info!(%hour, "closed the hour");
        }
    }

    /// Writes a file, then says so; nothing happens when another process has written it.
    async fn write(&self, hour: ExportHour, kind: ExportKind, now: DateTime<Utc>) -> anyhow::Result<()> {
        let mut transaction = self.db.begin().await.context("beginning a transaction")?;
        db::exports::lock_files(&mut transaction).await.context("waiting for the right to write")?;
        if db::exports::find_sha256(&mut *transaction, hour, kind).await?.is_some() {
            return Ok(());
        }
        let file = NamedTempFile::new().context("making a temporary file")?;
        let (sha256, rows) = draw_up(&mut transaction, hour, kind, file.path()).await?;
        self.store.put_file(&hour.key(kind), file.path(), "text/csv").await?;
        db::exports::insert(&mut *transaction, hour, kind, &sha256, rows, now).await?;
        transaction.commit().await.context("recording the export")?;
        self.metrics.ledger.exports.inc();
        info!(%hour, kind = kind.name(), rows, sha256, "wrote an export");
        Ok(())
    }
}

impl Task for ExportHours {
    const NAME: &'static str = "export_hour";
    const EVERY: Duration = Duration::from_secs(1);

    async fn run(&self, now: DateTime<Utc>) -> anyhow::Result<()> {
        self.close_hours(now).await?;
        let missing = db::exports::list_missing(&self.db).await.context("listing missing exports")?;
        self.metrics.ledger.exports_missing.set(i64::try_from(missing.len()).unwrap_or(i64::MAX));
        for (hour, kind) in missing {
            self.write(hour, kind, now).await.with_context(|| format!("exporting {hour} {}", kind.name()))?;
            self.metrics.ledger.exports_missing.dec();
        }
        Ok(())
    }
}

impl Draft {
    async fn create(path: &Path, columns: &[&str]) -> anyhow::Result<Self> {
        let file = File::create(path).await.context("opening a temporary file")?;
        Ok(Self { file, digest: Sha256::new(), sheet: Sheet::with_columns(columns)?, rows: 0 })
    }

    /// Counts a line that the sheet got, and moves the sheet to the disk now and then.
    async fn counted(&mut self) -> anyhow::Result<()> {
        self.rows += 1;
        if self.rows % LINES == 0 { self.save().await } else { Ok(()) }
    }

    async fn save(&mut self) -> anyhow::Result<()> {
        let bytes = self.sheet.take()?;
        self.digest.update(&bytes);
        self.file.write_all(&bytes).await.context("writing a temporary file")
    }

    async fn finish(mut self) -> anyhow::Result<(String, i64)> {
        self.save().await?;
        self.file.flush().await.context("writing a temporary file")?;
        Ok((hex::encode(self.digest.finalize()), self.rows))
    }
}

/// Writes the lines of one file to the disk; gives its SHA-256 and the number of rows.
async fn draw_up(
    db: &mut PgConnection,
    hour: ExportHour,
    kind: ExportKind,
    path: &Path,
) -> anyhow::Result<(String, i64)> {
    let draft = match kind {
        ExportKind::Invocations => {
            let mut draft = Draft::create(path, &INVOCATION_COLUMNS).await?;
            let mut rows = db::invocations::of_hour(db, hour);
            while let Some(row) = rows.try_next().await.context("reading invocations")? {
                draft.sheet.push_invocation(&row)?;
                draft.counted().await?;
            }
            draft
        }
        ExportKind::Reports => {
            let mut draft = Draft::create(path, &REPORT_COLUMNS).await?;
            let mut rows = db::reports::of_hour(db, hour);
            while let Some(row) = rows.try_next().await.context("reading reports")? {
                draft.sheet.push_report(&row)?;
                draft.counted().await?;
            }
            draft
        }
        // There is no table of jobs yet, hence no row.
        ExportKind::Jobs => Draft::create(path, &JOB_COLUMNS).await?,
    };
    draft.finish().await
}
