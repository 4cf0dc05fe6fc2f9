//! Does what the shipper of the record path says, on real files and a real Redis.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use protocol::ids::WriterId;
use protocol::record::reader::Stored;
use protocol::record::shipped::Cursor;
use protocol::record::shipper::{Shipper as Core, Step};
use protocol::usage::{Entry, Written};
use redis::RedisResult;
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::Shared;
use super::adopt::Adopted;
use super::disk::Files;
use super::folder::{Folder, Lock};
use super::stream::Stream;

/// Characters of an error that are logged.
const LONGEST_ERROR: usize = 200;

/// Ships the log of this process and those it adopted.
pub(crate) struct Shipper {
    shared: Arc<Shared>,
    client: redis::Client,
    stream: Option<Stream>,
    core: Core<Files>,
    /// The right to the folders of dead writers.
    adopted: HashMap<WriterId, (Folder, Lock)>,
    started: Instant,
}

impl Shipper {
    pub(crate) fn new(shared: Arc<Shared>, client: redis::Client) -> Self {
        let own = Stored { writer: shared.writer, disk: Files::of(&shared.folder), book: shared.log.shared_book() };
        let core = Core::new(own, Duration::ZERO);
        Self { shared, client, stream: None, core, adopted: HashMap::new(), started: Instant::now() }
    }

    /// Ships this log too.
    pub(crate) fn add(&mut self, adopted: Adopted) {
        let Adopted { stored, folder, lock, lost, damaged } = adopted;
        let metrics = &self.shared.metrics;
        metrics.record.adopted.inc();
        lost.iter().for_each(|record| metrics.count_record(record));
        info!(writer.id = %stored.writer, lost = lost.len(), "took over the record log of a dead process");
        if damaged > 0 {
            metrics.record.damaged.inc_by(damaged);
            error!(writer.id = %stored.writer, places = damaged, "the record log of a dead process is damaged");
        }
        self.adopted.insert(stored.writer, (folder, lock));
        self.core.add(stored, self.started.elapsed());
    }

    /// Does what is due; says whether there is more to do at once.
    pub(crate) async fn round(&mut self) -> bool {
        loop {
            let done = match self.core.step(self.started.elapsed(), self.shared.clock.now()) {
                Step::Connect => self.connect().await,
                Step::ReadMarks(writers) => self.read_marks(&writers).await,
                Step::Read(index, stored, cursor) => self.ship(index, stored, cursor).await,
                Step::Add(entries) => self.add_entries(&entries).await,
                Step::Sweep(logs) => {
                    self.sweep(logs).await;
                    Ok(())
                }
                Step::Again => return true,
                Step::Rest => return false,
            };
            if let Err(error) = done {
                self.stream = None;
                self.shared.metrics.redis.usage.set(0);
                if self.core.failed(self.started.elapsed(), rand::random_range(0.5..1.0)) {
                    // Of a pipeline, all errors are the same one.
                    let error: String = error.to_string().chars().take(LONGEST_ERROR).collect();
                    warn!(error, "cannot add to the usage stream; records wait on disk");
                }
                return false;
            }
        }
    }

    /// Whether Redis has every record of this process and knows that it writes no more.
    pub(crate) fn is_done(&self) -> bool {
        self.core.is_done()
    }

    async fn connect(&mut self) -> RedisResult<()> {
        let (stream, run) = Stream::connect(&self.client).await?;
        self.stream = Some(stream);
        self.shared.metrics.redis.usage.set(1);
        self.core.connected(run.as_deref(), self.started.elapsed());
        Ok(())
    }

    async fn read_marks(&mut self, writers: &[WriterId]) -> RedisResult<()> {
        let (marks, length) = self.stream()?.marks(writers).await?;
        self.core.marks(marks, length, self.started.elapsed());
        self.count_unconfirmed();
        Ok(())
    }

    /// Ships one batch of one log.
    async fn ship(&mut self, index: usize, stored: Stored<Files>, cursor: Cursor) -> RedisResult<()> {
        let writer = stored.writer;
        let read = spawn_blocking(move || stored.read(cursor.position, cursor.next)).await.map_err(io::Error::other);
        match self.core.read(index, read.flatten()) {
            Ok(entries) if entries.is_empty() => Ok(()),
            Ok(entries) => self.add_entries(&entries).await,
            Err(error) => {
                error!(writer.id = %writer, %error, "cannot read the record log");
                Ok(())
            }
        }
    }

    async fn add_entries(&mut self, entries: &[Entry<Written>]) -> RedisResult<()> {
        self.stream()?.add(entries).await?;
        if self.core.added(entries.len(), self.started.elapsed()) {
            info!("the usage stream takes records again");
        }
        for entry in entries {
            if let Entry::Gap { writer, from, through, damaged: true } = entry {
                self.shared.metrics.record.missing.inc_by(through - from + 1);
                error!(writer.id = %writer, from, through, "finals are missing in a record log");
            }
        }
        Ok(())
    }

    fn stream(&mut self) -> RedisResult<&mut Stream> {
        self.stream.as_mut().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected).into())
    }

    fn count_unconfirmed(&self) {
        let record = &self.shared.metrics.record;
        record.unconfirmed.set(i64::try_from(self.core.unconfirmed()).unwrap_or(i64::MAX));
        let age = |since: DateTime<Utc>| (self.shared.clock.now() - since).as_seconds_f64().max(0.0);
        record.oldest_unconfirmed.set(self.core.oldest_unconfirmed().map_or(0.0, age));
    }

    /// Deletes what is confirmed and old enough.
    async fn sweep(&mut self, logs: Vec<(Stored<Files>, u64)>) {
        self.count_unconfirmed();
        let keep = TimeDelta::from_std(self.shared.settings.keep).unwrap_or(TimeDelta::MAX);
        let before = self.shared.clock.now().checked_sub_signed(keep).unwrap_or(DateTime::<Utc>::MIN_UTC);
        for (stored, mark) in logs {
            let writer = stored.writer;
            let swept = spawn_blocking(move || stored.sweep(mark, before)).await.map_err(io::Error::other);
            if let Err(error) = swept.flatten() {
                warn!(writer.id = %writer, %error, "cannot delete a confirmed log segment");
            }
        }
        for writer in self.core.finished() {
            match self.adopted.get(&writer).map_or(Ok(()), |(folder, _)| folder.remove()) {
                Ok(()) => {
                    self.core.forget(writer);
                    self.adopted.remove(&writer);
                }
                Err(error) => {
                    warn!(writer.id = %writer, %error, "cannot remove the folder of a dead process");
                }
            }
        }
    }
}
