//! Runs programs as children that log to a file and die with this process.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

/// The only search path children get; nothing else of our environment reaches them.
const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const POLL: Duration = Duration::from_millis(10);

/// What to run, how and as whom.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The name in messages and of the log file.
    pub name: String,
    /// The executable.
    pub program: PathBuf,
    /// Its arguments; no secrets, everybody on the machine can read them.
    pub arguments: Vec<String>,
    /// Its whole environment beside the search path.
    pub environment: Vec<(String, String)>,
    /// The user it runs as, where that is not ours.
    pub user: Option<String>,
    /// What it gets when this process ends without stopping it.
    pub orphaned: &'static str,
}

impl Launch {
    /// A program that is killed when this process ends.
    pub fn new(name: &str, program: impl Into<PathBuf>) -> Self {
        Self {
            name: name.to_owned(),
            program: program.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            user: None,
            orphaned: "KILL",
        }
    }

    /// With these arguments too.
    #[must_use]
    pub fn arguments<T: Into<String>>(mut self, arguments: impl IntoIterator<Item = T>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// With this variable.
    #[must_use]
    pub fn variable(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// As this user.
    #[must_use]
    pub fn user(mut self, user: Option<&str>) -> Self {
        self.user = user.map(str::to_owned);
        self
    }

    /// `setpriv` sets the death signal and the user, then becomes the program.
    fn command(&self) -> Command {
        let mut command = Command::new("setpriv");
        command.arg("--pdeathsig").arg(self.orphaned);
        if let Some(user) = &self.user {
            command.args(["--reuid", user, "--regid", user, "--init-groups"]);
        }
        command.arg("--").arg(&self.program).args(&self.arguments);
        command.env_clear().env("PATH", SEARCH_PATH).env("LC_ALL", "C.UTF-8");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        // A group of its own: Ctrl-C on the terminal must reach only us, who stop the children in order.
        command.process_group(0).current_dir("/").stdin(Stdio::null());
        command
    }
}

/// Starts children from a thread of its own.
///
/// Linux sends the death signal when the *thread* that started a child ends, so that thread has to outlive them all.
pub struct Spawner {
    requests: mpsc::Sender<Request>,
    logs: PathBuf,
}

struct Request {
    command: Command,
    answer: tokio::sync::oneshot::Sender<std::io::Result<std::process::Child>>,
}

impl Spawner {
    /// A spawner whose children log into this folder.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn new(logs: PathBuf) -> anyhow::Result<Self> {
        let (requests, inbox) = mpsc::channel::<Request>();
        let serve = move || {
            for mut request in inbox {
                // A caller that went away drops the receiver and, with the answer, the child.
                let _ = request.answer.send(request.command.spawn());
            }
        };
        std::thread::Builder::new().name("spawner".into()).spawn(serve).context("starting the spawner thread")?;
        Ok(Self { requests, logs })
    }

    /// Starts a child; its output goes to `{name}.log`.
    ///
    /// # Errors
    /// When the log or the program cannot be opened.
    pub async fn start(&self, launch: &Launch) -> anyhow::Result<Child> {
        let mut command = launch.command();
        let path = self.log(&launch.name);
        let log = OpenOptions::new().create(true).append(true).mode(0o600).open(&path);
        let log = log.with_context(|| format!("opening {}", path.display()))?;
        command.stdout(log.try_clone()?).stderr(log);
        let process = self.spawn(command).await.with_context(|| format!("starting {}", launch.name))?;
        Child::new(&launch.name, process)
    }

    /// Starts a child whose input and output are pipes; errors go to `{name}.log`.
    ///
    /// # Errors
    /// When the log or the program cannot be opened.
    pub async fn start_piped(&self, launch: &Launch) -> anyhow::Result<Child> {
        let mut command = launch.command();
        let path = self.log(&launch.name);
        let log = OpenOptions::new().create(true).append(true).mode(0o600).open(&path);
        command.stderr(log.with_context(|| format!("opening {}", path.display()))?);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let process = self.spawn(command).await.with_context(|| format!("starting {}", launch.name))?;
        Child::new(&launch.name, process)
    }

    /// Where a child of this name logs.
    #[must_use]
    pub fn log(&self, name: &str) -> PathBuf {
        self.logs.join(format!("{name}.log"))
    }

    async fn spawn(&self, command: Command) -> anyhow::Result<std::process::Child> {
        let (answer, reply) = tokio::sync::oneshot::channel();
        self.requests.send(Request { command, answer }).ok().context("the spawner thread is gone")?;
        Ok(reply.await.context("the spawner thread is gone")??)
    }
}

/// Runs a program to its end.
///
/// # Errors
/// When it cannot be started, takes longer than allowed, or fails; with what it wrote to standard error.
pub async fn run(launch: &Launch, allowed: Duration) -> anyhow::Result<String> {
    let mut command = tokio::process::Command::from(launch.command());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let child = command.spawn().with_context(|| format!("starting {}", launch.program.display()))?;
    let output = tokio::time::timeout(allowed, child.wait_with_output())
        .await
        .with_context(|| format!("{} did not end within {allowed:?}", launch.name))??;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        bail!("{} failed ({}): {}", launch.name, output.status, words.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A running program; dropping it kills it.
pub struct Child {
    name: String,
    process: std::process::Child,
    pid: Pid,
}

impl Child {
    fn new(name: &str, process: std::process::Child) -> anyhow::Result<Self> {
        let pid = Pid::from_child(&process);
        Ok(Self { name: name.to_owned(), process, pid })
    }

    /// The process's number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// The pipes of a child started with [`Spawner::start_piped`]; once.
    pub fn pipes(&mut self) -> Option<(std::process::ChildStdin, std::process::ChildStdout)> {
        self.process.stdin.take().zip(self.process.stdout.take())
    }

    /// How it ended, if it did.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        self.process.try_wait().with_context(|| format!("looking after {}", self.name))
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When the process has ended.
    pub fn signal(&mut self, signal: Signal) -> anyhow::Result<()> {
        if let Some(status) = self.ended()? {
            bail!("{} has ended ({status})", self.name);
        }
        kill_process(self.pid, signal).with_context(|| format!("signalling {}", self.name))
    }

    /// Holds the process where it is, connections open.
    ///
    /// # Errors
    /// When the process has ended.
    pub fn freeze(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets a frozen process go on.
    ///
    /// # Errors
    /// When the process has ended.
    pub fn thaw(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    /// Kills the process without a chance to tidy up, and waits until it is gone.
    ///
    /// # Errors
    /// When the system does not say how it ended.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.process.kill().with_context(|| format!("killing {}", self.name))?;
        self.process.wait().with_context(|| format!("waiting for {}", self.name))?;
        Ok(())
    }

    /// Asks the process to end and waits; kills it when it takes longer than allowed, and says so.
    ///
    /// # Errors
    /// When it had to be killed.
    pub async fn stop(&mut self, signal: Signal, allowed: Duration) -> anyhow::Result<()> {
        if self.ended()?.is_some() {
            return Ok(());
        }
        self.signal(signal)?;
        let deadline = Instant::now() + allowed;
        while Instant::now() < deadline {
            if self.ended()?.is_some() {
                return Ok(());
            }
            sleep(POLL).await;
        }
        self.kill()?;
        bail!("{} did not stop within {allowed:?} and was killed", self.name)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Already ended is the usual case; there is nobody to tell otherwise.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
