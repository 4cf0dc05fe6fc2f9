//! The sample miner: a process whose instances speak the SDK's wire and can be told to fail.
//!
//! It reads the plain-JSON form of the envelope. Arguments in the pickle form are refused, because pickle is never
//! read in Rust; a cord without arguments is served in either form.

mod counters;
mod engine;
mod faults;
mod server;
mod steering;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use protocol::signing::Hotkey;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

pub use counters::{ClosedEarly, Counters};
pub use engine::{Engine, model_object};
pub use faults::{Behaviour, Fault};
pub use server::serve;

use crate::children::{Child, Launch, Spawner};
use crate::private;

const READY: Duration = Duration::from_secs(20);
const ANSWER: Duration = Duration::from_secs(10);

/// What a miner process is told in its file.
#[derive(Clone, Serialize, Deserialize)]
pub struct Settings {
    /// Address of the call key; no other validator is served.
    pub validator: Hotkey,
    /// The miner's own hotkey.
    pub hotkey: Hotkey,
    /// Port on 127.0.0.1 that tests steer it by.
    pub steering_port: u16,
    /// Its instances.
    pub instances: Vec<Instance>,
}

/// One instance of the sample miner.
#[derive(Clone, Serialize, Deserialize)]
pub struct Instance {
    /// Its port on 127.0.0.1.
    pub port: u16,
    /// Its symmetric key: 32 hex digits.
    pub key: String,
    /// What it runs.
    pub engine: Engine,
    /// The model or chute name it answers with.
    pub model: String,
    /// Calls at once; more get 429.
    pub concurrency: usize,
}

/// A running miner process.
pub struct Miner {
    launch: Launch,
    child: Child,
    steering: String,
    web: reqwest::Client,
}

impl Miner {
    /// Starts the process and waits until its instances listen.
    ///
    /// # Errors
    /// When it cannot be started or does not answer.
    pub async fn start(program: &Path, folder: &Path, settings: &Settings, spawner: &Spawner) -> anyhow::Result<Self> {
        let file = folder.join("miner.json");
        private::write(&file, &serde_json::to_vec_pretty(settings)?)?;
        let launch = Launch::new("miner", program).arguments([file.display().to_string()]);
        let child = spawner.start(&launch).await?;
        let steering = format!("http://127.0.0.1:{}", settings.steering_port);
        let mut miner = Self { launch, child, steering, web: crate::web::client(None)? };
        miner.wait_until_ready().await.with_context(|| format!("see {}", spawner.log("miner").display()))?;
        Ok(miner)
    }

    /// Tells one instance how to behave from now on.
    ///
    /// # Errors
    /// When the miner does not take it.
    pub async fn set(&self, port: u16, behaviour: &Behaviour) -> anyhow::Result<()> {
        let url = format!("{}/instances/{port}", self.steering);
        let answer = self.web.put(url).json(behaviour).timeout(ANSWER).send().await?;
        answer.error_for_status().context("steering the miner")?;
        Ok(())
    }

    /// Kills one instance: its port and its connections close at once, for good.
    ///
    /// # Errors
    /// When the miner does not do it.
    pub async fn kill_instance(&self, port: u16) -> anyhow::Result<()> {
        let url = format!("{}/instances/{port}", self.steering);
        let answer = self.web.delete(url).timeout(ANSWER).send().await?;
        answer.error_for_status().context("killing an instance")?;
        Ok(())
    }

    /// What one instance has counted since it started.
    ///
    /// # Errors
    /// When the miner does not answer.
    pub async fn counters(&self, port: u16) -> anyhow::Result<Counters> {
        let url = format!("{}/instances/{port}", self.steering);
        let answer = self.web.get(url).timeout(ANSWER).send().await?.error_for_status()?;
        Ok(answer.json().await?)
    }

    /// The process, for faults.
    pub fn process(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Starts the process again after it was killed.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn start_again(&mut self, spawner: &Spawner) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child = spawner.start(&self.launch).await?;
        self.wait_until_ready().await
    }

    /// Stops it.
    ///
    /// # Errors
    /// When it had to be killed.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        self.child.stop(Signal::TERM, ANSWER).await
    }

    async fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let deadline = tokio::time::Instant::now() + READY;
        let url = format!("{}/ready", self.steering);
        while self.web.get(&url).timeout(ANSWER).send().await.is_err() {
            if let Some(status) = self.child.ended()? {
                bail!("the miner ended at once ({status})");
            }
            if tokio::time::Instant::now() > deadline {
                bail!("the miner does not answer");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}
