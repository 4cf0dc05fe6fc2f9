//! The whole platform on one machine: starts its parts in order, watches them, stops them.

mod control;
mod described;
mod gateway;
mod stores;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use protocol::signing::Keypair;

use crate::admin::Admin;
use crate::certificates::Certificates;
use crate::children::Spawner;
use crate::miner::{self, Miner};
use crate::ports::Ports;
use crate::postgres::Postgres;
use crate::private;
use crate::programs::Programs;
use crate::proxy::Proxy;
use crate::redis::{Redis, User};
use crate::sample::{Capacity, Sample};
use crate::secrets::Secrets;
use crate::store::Store;
use crate::web;

pub use control::Control;
pub use gateway::Gateway;
use stores::Stores;

/// The domain of every local stack.
pub const DOMAIN: &str = "chutes.localhost";
/// Where calls to instances leave from: an SDK container trusts a peer at 127.0.0.1 blindly.
pub const GATEWAY_SOURCE: &str = "127.0.0.2";
const FIRST_CALL: Duration = Duration::from_secs(60);

/// What to start.
pub struct Options {
    /// Folder of everything the stack keeps.
    pub folder: PathBuf,
    /// Folder for PostgreSQL's data when its user cannot enter `folder`.
    pub state: PathBuf,
    /// Folder of the gateways' record logs.
    pub records: PathBuf,
    /// The executables.
    pub programs: Programs,
    /// Number of gateways.
    pub gateways: usize,
    /// Instances of the text chute, and the calls that each of them serves at once.
    pub text: Capacity,
    /// Variables for the gateways, over those the stack sets.
    pub gateway_settings: Vec<(String, String)>,
    /// Seconds by which all clocks of the platform run ahead.
    pub clock_offset: i64,
    /// Whether gateways reach Redis through a proxy that can be frozen.
    pub freezable_redis: bool,
    /// Whether Redis writes down what it is told, so that one that was killed comes back with it.
    pub durable_redis: bool,
    /// Who hears what is being done.
    pub progress: fn(&str),
}

/// A running platform. Dropping it kills its programs; [`Platform::stop`] lets them tidy up.
pub struct Platform {
    // Dropped from the top: what others depend on comes last.
    /// The gateways, in the order of their numbers.
    pub gateways: Vec<Gateway>,
    /// The operator's commands.
    pub admin: Admin,
    /// Control's roles.
    pub control: Control,
    /// The sample miner.
    pub miner: Miner,
    /// The proxy between gateways and Redis, if there is one.
    pub redis_proxy: Option<Proxy>,
    /// The object store.
    pub store: Store,
    /// Redis.
    pub redis: Redis,
    /// PostgreSQL.
    pub postgres: Postgres,
    /// What it was filled with.
    pub sample: Sample,
    /// The certificates.
    pub certificates: Certificates,
    /// The secrets.
    pub secrets: Secrets,
    /// Starts and outlives the programs.
    pub spawner: Spawner,
    /// The folder of everything.
    pub folder: PathBuf,
}

impl Options {
    /// A stack of two gateways in this folder.
    #[must_use]
    pub fn new(folder: PathBuf, programs: Programs) -> Self {
        Self {
            state: folder.join("state"),
            records: folder.join("records"),
            folder,
            programs,
            gateways: 2,
            text: Capacity::default(),
            gateway_settings: Vec::new(),
            clock_offset: 0,
            freezable_redis: false,
            durable_redis: false,
            progress: |_| {},
        }
    }
}

impl Platform {
    /// Starts everything and waits until a first call has been answered.
    ///
    /// # Errors
    /// When a part cannot be started; those that were are stopped again.
    pub async fn start(mut options: Options) -> anyhow::Result<Self> {
        let say = options.progress;
        options.folder = prepare(&options.folder)?;
        private::make_folder(&options.records)?;
        let folder = options.folder.clone();
        let secrets = Secrets::of_folder(&folder)?;
        let certificates = Certificates::of_folder(&folder, DOMAIN)?;
        let mut ports = Ports::of_folder(&folder)?;
        let spawner = Spawner::new(folder.join("log"))?;
        let stores = Stores::start(&options, &secrets, &mut ports, &spawner).await?;

        say("bringing the database to its newest form");
        let settings = control_settings(&options, &secrets, &stores);
        settings.migrate().await?;
        say("starting control");
        let control = Control::start(settings.clone(), &mut ports, &spawner).await?;
        say("adding what is missing of the sample data");
        let mut admin = Admin::start(&settings.admin(), &spawner).await?;
        let hotkey = keypair(&secrets.miner_seed)?.hotkey().clone();
        let sample = Sample::of_folder(&folder, options.text, &mut admin, &mut ports, &hotkey).await?;
        say("starting the sample miner");
        let miner = miner::Settings {
            validator: keypair(&secrets.call_seed)?.hotkey().clone(),
            hotkey,
            steering_port: ports.claim("steering")?,
            instances: sample.miner_instances(),
        };
        let miner = Miner::start(&options.programs.miner, &folder, &miner, &spawner).await?;

        let settings = gateway_settings(&options, &secrets, &stores, &control, &certificates);
        let mut gateways = Vec::new();
        for number in 0..options.gateways {
            say(&format!("starting gateway {number}"));
            gateways.push(Gateway::start(number, settings.clone(), &mut ports, &spawner).await?);
        }
        let Stores { postgres, redis, redis_proxy, store } = stores;
        let mut platform = Self {
            gateways,
            admin,
            control,
            miner,
            redis_proxy,
            store,
            redis,
            postgres,
            sample,
            certificates,
            secrets,
            spawner,
            folder,
        };
        say("waiting for a first call to be answered");
        platform.make_first_calls().await?;
        platform.describe()?.write(&platform.folder)?;
        Ok(platform)
    }

    /// A client that trusts the stack's authority and finds its hosts without a resolver.
    ///
    /// # Errors
    /// When the authority's certificate cannot be read.
    pub fn web(&self) -> anyhow::Result<reqwest::Client> {
        web::client(Some(&self.certificates.authority))
    }

    /// The address of a host, by its label, at one of the gateways.
    #[must_use]
    pub fn url(&self, label: &str, gateway: usize) -> String {
        format!("https://{label}.{DOMAIN}:{}", self.gateways[gateway].https_port)
    }

    /// Fails when a program has ended by itself.
    ///
    /// # Errors
    /// With the name of the program.
    pub fn watch(&mut self) -> anyhow::Result<()> {
        let gateways = self.gateways.iter_mut().map(|gateway| ("gateway", gateway.process()));
        let [worker, api] = self.control.processes();
        let others = [
            ("postgres", self.postgres.process()),
            ("redis", self.redis.process()),
            ("control-worker", worker),
            ("control-api", api),
            ("miner", self.miner.process()),
        ];
        for (name, process) in gateways.chain(others) {
            if let Some(status) = process.ended()? {
                bail!("{name} ended by itself ({status}); see {}", self.spawner.log(name).display());
            }
        }
        Ok(())
    }

    /// Stops everything, the edge first, the stores last.
    ///
    /// # Errors
    /// When a program had to be killed; the others are stopped all the same.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        let mut results = Vec::new();
        results.extend(futures::future::join_all(self.gateways.iter_mut().map(Gateway::stop)).await);
        drop(self.admin);
        results.push(self.control.stop().await);
        results.push(self.miner.stop().await);
        results.push(self.redis.stop().await);
        results.push(self.postgres.stop().await);
        let description = self.folder.join(crate::description::FILE);
        results.push(std::fs::remove_file(&description).context("removing the description"));
        results.into_iter().collect()
    }

    /// A short chat through each gateway, again and again until it is answered.
    async fn make_first_calls(&self) -> anyhow::Result<()> {
        let web = self.web()?;
        let body = serde_json::json!({
            "model": self.sample.chute(miner::Engine::Vllm).model,
            "messages": [{"role": "user", "content": "Say a word."}], "max_tokens": 1,
        });
        for number in 0..self.gateways.len() {
            let url = format!("{}/v1/chat/completions", self.url("llm", number));
            let deadline = tokio::time::Instant::now() + FIRST_CALL;
            loop {
                let call = web.post(&url).bearer_auth(&self.sample.api_key).json(&body).timeout(FIRST_CALL);
                let answer = call.send().await;
                if answer.as_ref().is_ok_and(|answer| answer.status().is_success()) {
                    break;
                }
                if tokio::time::Instant::now() > deadline {
                    let words = match answer {
                        Ok(answer) => answer.text().await.unwrap_or_default(),
                        Err(error) => format!("{error:?}"),
                    };
                    bail!("gateway {number} answers no call: {words}");
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        Ok(())
    }
}

/// Makes the folders; PostgreSQL's user passes through the top one, nobody else's files in it can be read.
fn prepare(folder: &Path) -> anyhow::Result<PathBuf> {
    private::make_folder(folder)?;
    let folder = folder.canonicalize().context("finding the folder of the stack")?;
    std::fs::set_permissions(&folder, Permissions::from_mode(0o711)).context("opening the folder of the stack")?;
    private::make_folder(&folder.join("log"))?;
    private::make_folder(&folder.join("upgrades"))?;
    Ok(folder)
}

fn control_settings(options: &Options, secrets: &Secrets, stores: &Stores) -> control::Settings {
    control::Settings {
        program: options.programs.control.clone(),
        secrets: secrets.clone(),
        postgres_url: stores.postgres.url().to_owned(),
        redis_url: stores.redis.url(User::Control).to_owned(),
        store_endpoint: stores.store.endpoint.clone(),
        clock_offset: options.clock_offset,
    }
}

fn gateway_settings(
    options: &Options,
    secrets: &Secrets,
    stores: &Stores,
    control: &Control,
    certificates: &Certificates,
) -> gateway::Settings {
    gateway::Settings {
        program: options.programs.gateway.clone(),
        secrets: secrets.clone(),
        redis_url: stores.redis_url_of_gateways(),
        api: control.api_port,
        control_url: control.internal_url(),
        certificates: certificates.folder.clone(),
        records: options.records.clone(),
        upgrades: options.folder.join("upgrades"),
        clock_offset: options.clock_offset,
        overrides: options.gateway_settings.clone(),
    }
}

fn keypair(seed: &str) -> anyhow::Result<Keypair> {
    Keypair::from_seed_hex(seed).ok().context("a seed of the stack is no seed")
}
