//! What a fresh stack is filled with: an official user with three chutes, and a demo user with a key.

mod chutes;

use std::path::Path;

use anyhow::Context;
use protocol::ids::{ChuteId, InstanceId, UserId};
use protocol::signing::Hotkey;
use serde::{Deserialize, Serialize};

use crate::admin::Admin;
use crate::miner::{self, Engine};
use crate::ports::Ports;
use crate::private;
use crate::secrets::random_instance_key;

pub use chutes::OFFICIAL_USER;

const FILE: &str = "sample.json";
const DEMO_USER: &str = "demo";
/// Calls a day that cost the demo user nothing.
const DEMO_QUOTA: &str = "100000";
const DEMO_BALANCE: &str = "100";

/// How many instances a chute has, and how many calls each of them serves at once.
#[derive(Clone, Copy, Debug)]
pub struct Capacity {
    /// Instances.
    pub instances: usize,
    /// Calls at once of one instance.
    pub concurrency: usize,
}

impl Default for Capacity {
    fn default() -> Self {
        Self { instances: 3, concurrency: 32 }
    }
}

/// The sample data of a stack.
#[derive(Clone, Serialize, Deserialize)]
pub struct Sample {
    /// Whose key it is.
    pub user: UserId,
    /// The user's name.
    pub username: String,
    /// A key that may do everything its user may.
    pub api_key: String,
    /// The text, embedding and image chutes.
    pub chutes: Vec<Chute>,
}

/// One sample chute.
#[derive(Clone, Serialize, Deserialize)]
pub struct Chute {
    /// Its identifier.
    pub id: ChuteId,
    /// Its label in host names.
    pub slug: String,
    /// Its name; for text the model's.
    pub model: String,
    /// What its instances run.
    pub engine: Engine,
    /// Calls at once that each instance serves.
    pub concurrency: usize,
    /// Its instances.
    pub instances: Vec<Instance>,
}

/// One sample instance.
#[derive(Clone, Serialize, Deserialize)]
pub struct Instance {
    /// Its identifier.
    pub id: InstanceId,
    /// Its port on 127.0.0.1.
    pub port: u16,
    /// Its symmetric key.
    pub key: String,
}

impl Sample {
    /// The data of an earlier start, or new data with this text chute; instances follow their ports.
    ///
    /// # Errors
    /// When a command fails.
    pub async fn of_folder(
        folder: &Path,
        text: Capacity,
        admin: &mut Admin,
        ports: &mut Ports,
        hotkey: &Hotkey,
    ) -> anyhow::Result<Self> {
        let file = folder.join(FILE);
        let mut sample = if Self::is_in(folder) {
            let text = std::fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
            serde_json::from_slice(&text).with_context(|| format!("reading {}", file.display()))?
        } else {
            Self::create(admin, text).await.context("filling the platform with sample data")?
        };
        for chute in &mut sample.chutes {
            let wanted = if chute.engine == Engine::Vllm { text.instances } else { 1 };
            chute.place_instances(wanted, admin, ports, hotkey).await.context("adding the sample instances")?;
        }
        private::write(&file, &serde_json::to_vec_pretty(&sample)?)?;
        Ok(sample)
    }

    /// Whether an earlier start has filled the platform of this folder.
    #[must_use]
    pub fn is_in(folder: &Path) -> bool {
        folder.join(FILE).exists()
    }

    /// The chute that runs this engine.
    ///
    /// # Panics
    /// Never: a sample has a chute of each engine.
    #[must_use]
    pub fn chute(&self, engine: Engine) -> &Chute {
        self.chutes.iter().find(|chute| chute.engine == engine).expect("a sample has a chute of each engine")
    }

    /// The miner's side of all instances.
    #[must_use]
    pub fn miner_instances(&self) -> Vec<miner::Instance> {
        let of_chute = |chute: &Chute| {
            let (engine, model, concurrency) = (chute.engine, chute.model.clone(), chute.concurrency);
            chute.instances.clone().into_iter().map(move |instance| miner::Instance {
                port: instance.port,
                key: instance.key,
                engine,
                model: model.clone(),
                concurrency,
            })
        };
        self.chutes.iter().flat_map(of_chute).collect()
    }

    async fn create(admin: &mut Admin, text: Capacity) -> anyhow::Result<Self> {
        let chutes = chutes::create(admin, text.concurrency).await?;
        let user = admin.text(&["user", "create", "--username", DEMO_USER], "user_id").await?;
        let demo = user.parse().context("reading the demo user's id")?;
        admin.run(&["quota", "set", "--user", &user, "--calls", DEMO_QUOTA]).await?;
        admin.run(&["balance", "set", "--user", &user, "--usd", DEMO_BALANCE]).await?;
        let key = ["key", "create", "--user", &user, "--name", "sample", "--admin"];
        let api_key = admin.text(&key, "secret_key").await?;
        Ok(Self { user: demo, username: DEMO_USER.into(), api_key, chutes })
    }
}

impl Chute {
    /// Adds the instances that are missing, and moves those whose port somebody else has taken.
    async fn place_instances(
        &mut self,
        wanted: usize,
        admin: &mut Admin,
        ports: &mut Ports,
        hotkey: &Hotkey,
    ) -> anyhow::Result<()> {
        for number in 0..wanted {
            let port = ports.claim(&format!("instance-{}-{number}", self.slug))?;
            match self.instances.get(number) {
                Some(instance) if instance.port == port => continue,
                Some(instance) => {
                    admin.run(&["instance", "remove", "--instance", &instance.id.to_string()]).await?;
                    self.instances[number] = self.add_instance(admin, port, hotkey).await?;
                }
                None => {
                    let added = self.add_instance(admin, port, hotkey).await?;
                    self.instances.push(added);
                }
            }
        }
        Ok(())
    }

    async fn add_instance(&self, admin: &mut Admin, port: u16, hotkey: &Hotkey) -> anyhow::Result<Instance> {
        let key = random_instance_key();
        let (chute, number) = (self.id.to_string(), port.to_string());
        let command = [
            "instance",
            "add",
            "--chute",
            &chute,
            "--host",
            "127.0.0.1",
            "--port",
            &number,
            "--miner-uid",
            "1",
            "--hotkey",
            hotkey.as_str(),
            "--key",
            &key,
        ];
        let id = admin.text(&command, "instance_id").await?.parse().context("reading an instance's id")?;
        Ok(Instance { id, port, key })
    }
}
