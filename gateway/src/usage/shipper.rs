//! Ships durable finals to Redis until Postgres has them, and tells that their writers live.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use redis::RedisResult;
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::Shared;
use super::adopt::Adopted;
use super::reader::{Batch, Stored};
use super::segment;
use super::shipped::{Cursor, Farewell, Shipped};
use super::stream::Stream;

/// Entries in the stream above which nothing is added: what is not read stays on disk.
const MAX_STREAM: usize = 200_000;

/// How often marks are read.
const MARKS: Duration = Duration::from_millis(250);

/// How often each live writer beats.
const BEAT: Duration = Duration::from_secs(1);

/// How often confirmed segments are looked for.
const SWEEP: Duration = Duration::from_secs(1);

/// Shortest and longest wait before Redis is tried again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Ships the log of this process and those it adopted.
pub(crate) struct Shipper {
    shared: Arc<Shared>,
    client: redis::Client,
    stream: Option<Stream>,
    shipped: Vec<Shipped>,
    started: Instant,
    length: usize,
    failures: u32,
    retry_at: Instant,
    marks_at: Instant,
    beat_at: Instant,
    sweep_at: Instant,
}

impl Shipper {
    pub(crate) fn new(shared: Arc<Shared>, client: redis::Client) -> Self {
        let now = Instant::now();
        let own = Stored { writer: shared.writer, segments: shared.folder.segments(), book: shared.log.shared_book() };
        Self {
            shared,
            client,
            stream: None,
            shipped: vec![Shipped::new(own, None)],
            started: now,
            length: 0,
            failures: 0,
            retry_at: now,
            marks_at: now,
            beat_at: now,
            sweep_at: now,
        }
    }

    /// Ships this log too.
    pub(crate) fn add(&mut self, adopted: Adopted) {
        self.shared.metrics.record.adopted.inc();
        let lost = adopted.lost;
        self.shared.metrics.calls.attempts.with_label_values(&["lost"]).inc_by(lost as u64);
        info!(writer.id = %adopted.stored.writer, lost, "took over the record log of a dead process");
        self.shipped.push(Shipped::new(adopted.stored, Some((adopted.folder, adopted.lock))));
        // Its mark is asked for before anything of it is sent.
        self.marks_at = Instant::now();
    }

    /// Does what is due; says whether there is more to do at once.
    pub(crate) async fn round(&mut self) -> bool {
        if Instant::now() >= self.sweep_at {
            self.sweep_at = Instant::now() + SWEEP;
            self.sweep().await;
        }
        let shipped = match self.stream.take() {
            Some(stream) => self.exchange(stream).await,
            None if Instant::now() >= self.retry_at => self.connect().await.map(|()| true),
            None => return false,
        };
        shipped.unwrap_or_else(|error| {
            self.failed(&error);
            false
        })
    }

    /// Whether Redis has every record of this process and knows that it writes no more.
    pub(crate) fn is_done(&self) -> bool {
        self.shipped.iter().filter(|one| one.adopted.is_none()).all(|one| one.farewell != Farewell::Unsaid)
    }

    async fn connect(&mut self) -> RedisResult<()> {
        let (stream, run) = Stream::connect(&self.client).await?;
        if self.failures > 0 {
            info!("the usage stream is reachable again");
        }
        self.failures = 0;
        for one in &mut self.shipped {
            one.shipment.connected(run.as_deref());
            one.farewell = Farewell::Unsaid;
        }
        self.marks_at = Instant::now();
        self.stream = Some(stream);
        Ok(())
    }

    /// The stream comes back only if everything went well.
    async fn exchange(&mut self, mut stream: Stream) -> RedisResult<bool> {
        if Instant::now() >= self.marks_at {
            self.marks_at = Instant::now() + MARKS;
            self.read_marks(&mut stream).await?;
        }
        let mut more = false;
        if self.length < MAX_STREAM {
            for index in 0..self.shipped.len() {
                more |= self.ship(index, &mut stream).await?;
            }
            self.beat(&mut stream).await?;
        }
        self.stream = Some(stream);
        Ok(more)
    }

    async fn read_marks(&mut self, stream: &mut Stream) -> RedisResult<()> {
        let writers: Vec<_> = self.shipped.iter().map(|one| one.stored.writer).collect();
        let (marks, length) = stream.marks(&writers).await?;
        self.length = length;
        let now = self.started.elapsed();
        for (one, mark) in self.shipped.iter_mut().zip(marks) {
            let last = one.stored.book().last();
            one.shipment.confirmed(mark, last, now);
        }
        self.count_unconfirmed();
        Ok(())
    }

    fn count_unconfirmed(&self) {
        let unconfirmed = |one: &Shipped| one.stored.book().last().saturating_sub(one.shipment.mark());
        let all: u64 = self.shipped.iter().map(unconfirmed).sum();
        self.shared.metrics.record.unconfirmed.set(i64::try_from(all).unwrap_or(i64::MAX));
    }

    /// Ships one batch of one log; says whether there was one.
    async fn ship(&mut self, index: usize, stream: &mut Stream) -> RedisResult<bool> {
        let now = self.started.elapsed();
        let one = &mut self.shipped[index];
        let Some(cursor) = one.locate(now) else { return Ok(false) };
        let stored = one.stored.clone();
        let read = spawn_blocking(move || stored.read(cursor.position, cursor.next)).await.map_err(io::Error::other);
        let Batch { finals, position } = match read.flatten() {
            Ok(batch) => batch,
            Err(error) => {
                error!(writer.id = %one.stored.writer, %error, "cannot read the record log");
                one.cursor = None;
                return Ok(false);
            }
        };
        let Some(last) = finals.last().map(|(sequence, _)| *sequence) else {
            one.cursor = Some(Cursor { position, ..cursor });
            return Ok(false);
        };
        let writer = one.stored.writer;
        stream.add_finals(writer, &finals).await?;
        self.length += finals.len();
        one.shipment.sent(last, self.started.elapsed());
        one.cursor = Some(Cursor { next: last + 1, position });
        Ok(true)
    }

    /// A beat of each live writer each second; farewells of the others.
    async fn beat(&mut self, stream: &mut Stream) -> RedisResult<()> {
        let due = Instant::now() >= self.beat_at;
        let now = self.shared.clock.now();
        let mut beats = Vec::new();
        let mut farewells = Vec::new();
        for (index, one) in self.shipped.iter().enumerate() {
            let mut book = one.stored.book();
            let says = if book.closed() { one.says_farewell(book.last(), due) } else { due };
            if says {
                let beat = book.beat(now);
                beats.push((one.stored.writer, beat));
                farewells.extend(beat.closed.then(|| (index, one.farewell_after(&beat))));
            }
        }
        if due {
            self.beat_at = Instant::now() + BEAT;
        }
        if beats.is_empty() {
            return Ok(());
        }
        stream.add_beats(&beats).await?;
        self.length += beats.len();
        for (index, farewell) in farewells {
            self.shipped[index].farewell = farewell;
        }
        Ok(())
    }

    /// Deletes what is confirmed and old enough.
    async fn sweep(&mut self) {
        self.count_unconfirmed();
        let keep = TimeDelta::from_std(self.shared.settings.keep).unwrap_or(TimeDelta::MAX);
        let before = self.shared.clock.now().checked_sub_signed(keep).unwrap_or(chrono::DateTime::<Utc>::MIN_UTC);
        for one in &self.shipped {
            let (stored, mark) = (one.stored.clone(), one.shipment.mark());
            let swept = spawn_blocking(move || sweep(&stored, mark, before)).await.map_err(io::Error::other);
            if let Err(error) = swept.flatten() {
                warn!(writer.id = %one.stored.writer, %error, "cannot delete a confirmed log segment");
            }
        }
        self.shipped.retain(|one| {
            let Some((folder, _)) = &one.adopted else { return true };
            if one.farewell != Farewell::Heard || !one.stored.book().is_empty() {
                return true;
            }
            let removed = folder.remove();
            if let Err(error) = &removed {
                warn!(writer.id = %one.stored.writer, %error, "cannot remove the folder of a dead process");
            }
            removed.is_err()
        });
    }

    fn failed(&mut self, error: &redis::RedisError) {
        if self.failures == 0 {
            warn!(%error, "cannot reach the usage stream; records wait on disk");
        }
        let wait = BACKOFF.0.saturating_mul(1 << self.failures.min(10)).min(BACKOFF.1);
        self.failures += 1;
        self.retry_at = Instant::now() + wait.mul_f64(rand::random_range(0.5..1.0));
    }
}

fn sweep(stored: &Stored, mark: u64, before: chrono::DateTime<Utc>) -> io::Result<()> {
    loop {
        let Some(number) = stored.book().deletable(mark, before) else { return Ok(()) };
        std::fs::remove_file(segment::path(&stored.segments, number))?;
        stored.book().forget(number);
    }
}
