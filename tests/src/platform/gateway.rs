//! One gateway as a process.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use protocol::session::SessionSigner;
use rustix::process::Signal;
use tokio::net::UnixDatagram;

use super::{DOMAIN, GATEWAY_SOURCE};
use crate::children::{Child, Launch, Spawner};
use crate::ports::Ports;
use crate::secrets::Secrets;
use crate::web;

/// How long a stopping gateway of a local stack waits for calls in flight.
const DRAIN: Duration = Duration::from_secs(10);
const STOP: Duration = Duration::from_secs(20);
/// How long the next process may take to take over.
const UPGRADE: Duration = Duration::from_secs(60);

/// What all gateways are told.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) program: PathBuf,
    pub(super) secrets: Secrets,
    pub(super) redis_url: String,
    pub(super) api: u16,
    pub(super) control_url: String,
    pub(super) certificates: PathBuf,
    pub(super) records: PathBuf,
    /// Folder of the sockets by which one process hands over to the next.
    pub(super) upgrades: PathBuf,
    pub(super) clock_offset: i64,
    pub(super) overrides: Vec<(String, String)>,
}

/// A running gateway.
pub struct Gateway {
    /// Its TLS port on both loopback addresses.
    pub https_port: u16,
    /// Its plain port on both loopback addresses.
    pub http_port: u16,
    /// Its internal port.
    pub internal_port: u16,
    name: String,
    upgrades: PathBuf,
    launch: Launch,
    child: Child,
}

impl Gateway {
    /// Starts a gateway and waits until it is healthy.
    pub(super) async fn start(
        number: usize,
        settings: Settings,
        ports: &mut Ports,
        spawner: &Spawner,
    ) -> anyhow::Result<Self> {
        let name = format!("gateway-{number}");
        let https_port = ports.claim(&format!("{name}-https"))?;
        let http_port = ports.claim(&format!("{name}-http"))?;
        let internal_port = ports.claim(&format!("{name}-internal"))?;
        let launch = settings.launch(&name, [https_port, http_port, internal_port])?;
        let child = spawner.start(&launch).await?;
        let upgrades = settings.upgrades;
        let mut gateway = Self { https_port, http_port, internal_port, name, upgrades, launch, child };
        gateway.wait_until_healthy(spawner).await?;
        Ok(gateway)
    }

    /// Address of its internal listener.
    #[must_use]
    pub fn internal_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.internal_port)
    }

    /// The process, for faults.
    pub fn process(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Kills it without a chance to tidy up.
    ///
    /// # Errors
    /// When the system does not say how it ended.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()
    }

    /// Starts it again after it ended.
    ///
    /// # Errors
    /// When it does not become healthy.
    pub async fn start_again(&mut self, spawner: &Spawner) -> anyhow::Result<()> {
        self.child = spawner.start(&self.launch).await?;
        self.wait_until_healthy(spawner).await
    }

    /// Has it replaced by another process with the same settings; the process that finishes what it has begun.
    ///
    /// # Errors
    /// When the next process does not take over; the one that runs goes on.
    pub async fn upgrade(&mut self, spawner: &Spawner) -> anyhow::Result<Child> {
        let path = self.upgrades.join(format!("{}.notify", self.name));
        let _ = std::fs::remove_file(&path);
        let manager = UnixDatagram::bind(&path).with_context(|| format!("opening {}", path.display()))?;
        let mut next = self.start_next(spawner).await?;
        let deadline = tokio::time::Instant::now() + UPGRADE;
        let mut words = [0; 256];
        loop {
            let heard = tokio::time::timeout(Duration::from_millis(50), manager.recv(&mut words)).await;
            if let Ok(length) = heard
                && words[..length?].starts_with(b"READY=1\n")
            {
                return Ok(std::mem::replace(&mut self.child, next));
            }
            if let Some(status) = next.ended()? {
                bail!("the next process ended ({status}); see {}", spawner.log(&self.name).display());
            }
            if tokio::time::Instant::now() > deadline {
                bail!("the next process has not taken over after {UPGRADE:?}");
            }
        }
    }

    /// Starts the process that is to replace this one, and waits for nothing.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn start_next(&self, spawner: &Spawner) -> anyhow::Result<Child> {
        let manager = self.upgrades.join(format!("{}.notify", self.name));
        let launch = self.launch.clone().arguments(["--upgrade"]);
        spawner.start(&launch.variable("NOTIFY_SOCKET", manager.display().to_string())).await
    }

    /// Stops it; calls in flight have some seconds to end.
    ///
    /// # Errors
    /// When it had to be killed.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        self.child.stop(Signal::TERM, STOP).await
    }

    async fn wait_until_healthy(&mut self, spawner: &Spawner) -> anyhow::Result<()> {
        let log = spawner.log(&self.name);
        web::wait_until_healthy(self.internal_port, &mut self.child)
            .await
            .with_context(|| format!("see {}", log.display()))
    }
}

impl Settings {
    fn launch(&self, name: &str, [https, http, internal]: [u16; 3]) -> anyhow::Result<Launch> {
        let both = |port: u16| format!("127.0.0.1:{port},[::1]:{port}");
        let seed: [u8; 32] = hex::decode(&self.secrets.session_seed)?.try_into().ok().context("a seed has 32 bytes")?;
        let session_key = hex::encode(SessionSigner::from_seed(seed).public_key());
        let mut launch = Launch::new(name, &self.program)
            .arguments(["--domain", DOMAIN, "--https", &both(https), "--http", &both(http)])
            .arguments(["--internal", &format!("127.0.0.1:{internal}"), "--source", GATEWAY_SOURCE])
            .arguments(["--api-upstream", &format!("127.0.0.1:{}", self.api), "--control-url", &self.control_url])
            .arguments(["--certificates", &self.certificates.display().to_string()])
            .arguments(["--log-folder", &self.records.display().to_string()])
            .arguments(["--upgrade-socket", &self.upgrades.join(format!("{name}.sock")).display().to_string()])
            .variable("SESSION_PUBLIC_KEY", session_key)
            .variable("GATEWAY_DRAIN_SECONDS", DRAIN.as_secs().to_string())
            .variable("GATEWAY_REDIS_URL", &*self.redis_url)
            .variable("INTERNAL_CREDENTIAL", &*self.secrets.internal)
            .variable("DIRECTORY_KEY", &*self.secrets.directory_key)
            .variable("CALL_KEY_SEED", &*self.secrets.call_seed);
        for (name, value) in &self.overrides {
            launch = launch.variable(name, value);
        }
        if self.clock_offset != 0 {
            launch = launch.arguments([format!("--clock-offset={}", self.clock_offset)]);
        }
        Ok(launch)
    }
}
