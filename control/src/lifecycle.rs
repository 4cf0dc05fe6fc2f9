//! Starts the program's permanent tasks by name, stops them together and waits for them.

use std::future::Future;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

/// The permanent tasks of a process.
pub struct Lifecycle {
    stop: CancellationToken,
    tasks: JoinSet<(&'static str, anyhow::Result<()>)>,
    terminate: Signal,
    interrupt: Signal,
}

impl Lifecycle {
    /// A life cycle without tasks. From here on a signal to stop is heard, whatever has been started by then.
    ///
    /// # Errors
    /// When the system does not let the process handle signals.
    pub fn new() -> anyhow::Result<Self> {
        let terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
        let interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
        Ok(Self { stop: CancellationToken::new(), tasks: JoinSet::new(), terminate, interrupt })
    }

    /// Is cancelled when the program shall stop; a task that sees it finishes what it began and returns.
    #[must_use]
    pub fn stopping(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Starts a permanent task: when it ends before the stop, the program ends too.
    pub fn spawn(&mut self, name: &'static str, task: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
        self.tasks.spawn(async move { (name, task.await) });
    }

    /// Runs until SIGTERM, SIGINT or the end of a task, then stops the others.
    ///
    /// # Errors
    /// When a task ended by itself, or one did not stop within the grace period.
    pub async fn run(mut self, grace: Duration) -> anyhow::Result<()> {
        let cause = tokio::select! {
            _ = self.terminate.recv() => Ok("SIGTERM"),
            _ = self.interrupt.recv() => Ok("SIGINT"),
            ended = self.tasks.join_next() => Err(ended),
        };
        self.stop.cancel();
        let outcome = match cause {
            Ok(signal) => {
                info!(signal, "stopping");
                Ok(())
            }
            Err(Some(Ok((name, result)))) => Err(ended_early(name, result)),
            Err(Some(Err(panic))) => Err(anyhow::Error::new(panic).context("a permanent task died")),
            Err(None) => bail!("nothing to run"),
        };
        if tokio::time::timeout(grace, self.drain()).await.is_err() {
            warn!(grace_ms = grace.as_millis(), "tasks did not stop in time, aborting them");
            self.tasks.shutdown().await;
            return outcome.and_then(|()| bail!("tasks did not stop in time"));
        }
        outcome
    }

    /// Waits for the tasks that were told to stop.
    async fn drain(&mut self) {
        while let Some(ended) = self.tasks.join_next().await {
            match ended {
                Ok((name, Ok(()))) => info!(task = name, "stopped"),
                Ok((name, Err(error))) => error!(task = name, error = format!("{error:#}"), "failed while stopping"),
                Err(panic) => error!(error = %panic, "a task died while stopping"),
            }
        }
    }
}

fn ended_early(name: &'static str, result: anyhow::Result<()>) -> anyhow::Error {
    match result {
        Ok(()) => anyhow::anyhow!("the permanent task {name} ended"),
        Err(error) => error.context(format!("the permanent task {name} failed")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_permanent_task_that_ends_stops_the_program_and_the_others() {
        let mut lifecycle = Lifecycle::new().unwrap();
        let stopping = lifecycle.stopping();
        let (told, heard) = tokio::sync::oneshot::channel();
        lifecycle.spawn("waits", async move {
            stopping.cancelled().await;
            told.send(()).map_err(|()| anyhow::anyhow!("nobody listens"))
        });
        lifecycle.spawn("ends", async { Ok(()) });
        let error = lifecycle.run(Duration::from_secs(5)).await.unwrap_err();
        assert_eq!(error.to_string(), "the permanent task ends ended");
        heard.await.unwrap();
    }

    #[tokio::test]
    async fn a_task_that_does_not_stop_is_aborted_and_reported() {
        let mut lifecycle = Lifecycle::new().unwrap();
        lifecycle.spawn("deaf", std::future::pending());
        lifecycle.spawn("fails", async { anyhow::bail!("no luck") });
        let error = lifecycle.run(Duration::from_millis(10)).await.unwrap_err();
        assert_eq!(format!("{error:#}"), "the permanent task fails failed: no luck");
    }
}
