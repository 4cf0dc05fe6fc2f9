//! The life of a stack that a person starts: in the foreground or detached, one per folder.

mod hold;
mod welcome;

pub use welcome::commands;

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};

use crate::config::{Place, Run};
use crate::description;
use crate::platform::{Options, Platform};
use crate::private;
use crate::programs::Programs;
use crate::screen::say;
use hold::Hold;

const WATCH: Duration = Duration::from_millis(500);
/// A detached start may make a cluster and certificates first.
const READY: Duration = Duration::from_secs(240);
const STOP: Duration = Duration::from_secs(90);
/// What a detached stack would have said on the screen.
const SCREEN: &str = "local.log";

/// Starts a platform and keeps it until Ctrl-C or a request to stop.
///
/// # Errors
/// When it cannot be started, or when a program ends by itself.
pub async fn run(run: &Run) -> anyhow::Result<()> {
    private::make_folder(&run.place.dir)?;
    let _hold = Hold::take(&run.place.dir)?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let programs = Programs::find().await?;
    let options = Options {
        state: run.state.clone(),
        gateways: usize::from(run.gateways),
        progress: say,
        ..Options::new(run.place.dir.clone(), programs)
    };
    let mut platform = tokio::select! {
        started = Platform::start(options) => started?,
        _ = interrupt.recv() => bail!("interrupted while starting"),
        _ = terminate.recv() => bail!("told to stop while starting"),
    };
    let end = if run.detached { hold::stop_command(&run.place.dir) } else { "Ctrl-C".into() };
    for line in welcome::lines(&platform.describe()?, &end) {
        say(&line);
    }
    let ended = loop {
        tokio::select! {
            _ = interrupt.recv() => break Ok(()),
            _ = terminate.recv() => break Ok(()),
            () = tokio::time::sleep(WATCH) => if let Err(error) = platform.watch() {
                break Err(error);
            },
        }
    };
    say("stopping");
    let stopped = platform.stop().await;
    ended.and(stopped)?;
    say("stopped");
    Ok(())
}

/// Starts a platform in a process of its own and waits until it is ready.
///
/// # Errors
/// When it does not become ready; with the last lines it said.
pub async fn detach(run: &Run) -> anyhow::Result<()> {
    private::make_folder(&run.place.dir)?;
    drop(Hold::take(&run.place.dir)?);
    let path = run.place.dir.join(SCREEN);
    let screen = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&path);
    let screen = screen.with_context(|| format!("opening {}", path.display()))?;
    let mut command = std::process::Command::new(std::env::current_exe()?);
    command.arg("run").arg("--detached").arg("--dir").arg(&run.place.dir).arg("--state").arg(&run.state);
    command.arg("--gateways").arg(run.gateways.to_string());
    command.stdin(Stdio::null()).stdout(screen.try_clone()?).stderr(screen).process_group(0);
    let mut child = command.spawn().context("starting a detached stack")?;
    let ready = run.place.dir.join(description::FILE);
    let deadline = tokio::time::Instant::now() + READY;
    let mut shown = 0;
    loop {
        shown = show_new_lines(&path, shown);
        if let Some(status) = child.try_wait()? {
            bail!("the stack ended while starting ({status})");
        }
        if ready.exists() && described_by(&ready, child.id()) {
            show_new_lines(&path, shown);
            return Ok(());
        }
        if tokio::time::Instant::now() > deadline {
            bail!("the stack is not ready after {READY:?}; see {}", path.display());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Stops a platform that runs, and waits until it is gone.
///
/// # Errors
/// When none runs in the folder, or it does not stop.
pub async fn stop(place: &Place) -> anyhow::Result<()> {
    let Some(pid) = hold::holder(&place.dir)? else {
        bail!("no stack runs in {}", place.dir.display());
    };
    let pid = Pid::from_raw(pid).context("the lock file names no process")?;
    kill_process(pid, Signal::TERM).context("asking the stack to stop")?;
    let deadline = tokio::time::Instant::now() + STOP;
    while hold::holder(&place.dir)?.is_some() {
        if tokio::time::Instant::now() > deadline {
            bail!("the stack has not stopped after {STOP:?}");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    say("stopped");
    Ok(())
}

/// Repeats what the detached stack said since the last time; gives how much that was in all.
fn show_new_lines(path: &Path, shown: usize) -> usize {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let whole = text.rfind('\n').map_or(0, |end| end + 1);
    for line in text.get(shown..whole).unwrap_or_default().lines() {
        say(line);
    }
    whole.max(shown)
}

/// Whether the description is of this process and not of an earlier one.
fn described_by(path: &Path, pid: u32) -> bool {
    let text = std::fs::read(path).unwrap_or_default();
    serde_json::from_slice::<description::Description>(&text)
        .is_ok_and(|description| description.pids.get("local").is_some_and(|pids| pids.contains(&pid)))
}
