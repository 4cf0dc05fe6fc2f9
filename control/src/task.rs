//! Duties: what a duty is, and the driver that runs each by the clock and when nudged, in one replica at a time.

use std::future::Future;
use std::time::Duration;

use anyhow::Context;
use chrono::{DateTime, Utc};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::db::duty::DutyLock;
use crate::state::State;

pub mod export_hour;
pub mod ingest_usage;
pub mod publish_directory;
pub mod publish_principals;

/// How often a replica that is not on duty tries to take it over.
const TAKE_OVER_EVERY: Duration = Duration::from_millis(500);
/// How often the replica on duty makes sure that it still is.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// How long an answer about the lock may take before the duty counts as lost.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest wait after runs that failed.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// An idempotent duty without input: it looks at the world and closes the gap.
pub trait Task: Send + Sync + 'static {
    /// Name of the duty, of its lock and of the Postgres channel that nudges it.
    const NAME: &'static str;
    /// How often it runs when nobody nudges it.
    const EVERY: Duration;

    /// Does it once.
    fn run(&self, now: DateTime<Utc>) -> impl Future<Output = anyhow::Result<()>> + Send;
}

/// Runs a duty whenever this replica holds its lock, until the program stops.
///
/// Postgres frees the lock of a broken connection before its holder hears of it: for that moment two replicas may run.
/// A duty is idempotent and takes the row and advisory locks it needs in its own transactions.
///
/// # Errors
/// Never: failures are logged and tried again.
pub async fn drive<T: Task>(task: T, state: State, stopping: CancellationToken) -> anyhow::Result<()> {
    while !stopping.is_cancelled() {
        let held = state.metrics.duty_held.with_label_values(&[T::NAME]);
        if let Err(error) = attend(&task, &state, &stopping).await {
            warn!(task = T::NAME, error = format!("{error:#}"), "lost the duty");
        }
        held.set(0);
        tokio::select! {
            () = stopping.cancelled() => {}
            () = sleep(TAKE_OVER_EVERY) => {}
        }
    }
    Ok(())
}

/// Waits until nobody has the duty, takes it, and does it until it is lost or the program stops.
async fn attend<T: Task>(task: &T, state: &State, stopping: &CancellationToken) -> anyhow::Result<()> {
    let lock = timeout(CHECK_TIMEOUT, DutyLock::connect(&state.db, T::NAME)).await;
    let mut lock = lock.context("connecting")?.context("connecting")?;
    while !timeout(CHECK_TIMEOUT, lock.try_take(T::NAME))
        .await
        .context("taking the lock")?
        .context("taking the lock")?
    {
        tokio::select! {
            () = stopping.cancelled() => return Ok(()),
            () = sleep(TAKE_OVER_EVERY) => {}
        }
    }
    state.metrics.duty_held.with_label_values(&[T::NAME]).set(1);
    info!(task = T::NAME, "on duty");
    let nudge = Notify::new();
    tokio::select! {
        lost = watch(&mut lock, &nudge) => lost,
        () = repeat(task, state, &nudge, stopping) => Ok(()),
    }
}

/// Passes nudges on; ends when the lock is lost.
async fn watch(lock: &mut DutyLock, nudge: &Notify) -> anyhow::Result<()> {
    loop {
        let check_at = Instant::now() + CHECK_EVERY;
        while let Ok(nudged) = tokio::time::timeout_at(check_at, lock.nudged()).await {
            nudged.context("listening")?;
            nudge.notify_one();
        }
        timeout(CHECK_TIMEOUT, lock.check()).await.context("checking the lock")?.context("checking the lock")?;
    }
}

/// Runs the duty by the clock and when nudged; a run that began is finished before the program stops.
async fn repeat<T: Task>(task: &T, state: &State, nudge: &Notify, stopping: &CancellationToken) {
    let mut failures = 0_u32;
    loop {
        let begun = Instant::now();
        let outcome = task.run(state.clock.now()).await;
        state.metrics.duty_seconds.with_label_values(&[T::NAME]).observe(begun.elapsed().as_secs_f64());
        let label = if outcome.is_ok() { "ok" } else { "failed" };
        state.metrics.duty_runs.with_label_values(&[T::NAME, label]).inc();
        failures = match outcome {
            Ok(()) => 0,
            Err(error) => {
                warn!(task = T::NAME, error = format!("{error:#}"), "a run failed, trying again");
                failures.saturating_add(1)
            }
        };
        let pause = if failures == 0 { Duration::ZERO } else { pause_after(failures) };
        tokio::select! {
            () = stopping.cancelled() => return,
            () = sleep(pause) => {}
        }
        tokio::select! {
            () = stopping.cancelled() => return,
            () = nudge.notified() => {}
            () = sleep(T::EVERY.saturating_sub(pause)) => {}
        }
    }
}

/// How long to wait after so many failures in a row, so that an outage is not answered with a storm.
fn pause_after(failures: u32) -> Duration {
    Duration::from_millis(50).saturating_mul(1 << failures.min(10)).min(LONGEST_PAUSE)
}
