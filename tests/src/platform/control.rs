//! Control's roles as processes: worker and api, with the settings each needs.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use rustix::process::Signal;

use crate::children::{Child, Launch, Spawner, run};
use crate::ports::Ports;
use crate::secrets::Secrets;
use crate::store::BUCKET;
use crate::web;

const WORKER: &str = "control-worker";
const SECOND_WORKER: &str = "control-worker-2";
const API: &str = "control-api";
const MIGRATE: Duration = Duration::from_secs(120);
const STOP: Duration = Duration::from_secs(30);

/// What control's roles are told.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) program: PathBuf,
    pub(super) secrets: Secrets,
    pub(super) postgres_url: String,
    pub(super) redis_url: String,
    pub(super) store_endpoint: String,
    pub(super) clock_offset: i64,
}

/// The running roles.
pub struct Control {
    /// Port of the public routes.
    pub api_port: u16,
    settings: Settings,
    internal: InternalPorts,
    worker: Child,
    api: Child,
}

/// Ports of the internal listeners.
#[derive(Clone, Copy)]
struct InternalPorts {
    api: u16,
    worker: u16,
    second_worker: u16,
}

impl Settings {
    /// Brings the database to its newest form.
    pub(super) async fn migrate(&self) -> anyhow::Result<()> {
        run(&self.role("control-migrate", "migrate", false), MIGRATE).await?;
        Ok(())
    }

    /// The operator's commands as a batch.
    pub(super) fn admin(&self) -> Launch {
        self.role("control-admin", "admin", true)
            .arguments(["batch"])
            .variable("DATABASE_KEY", &*self.secrets.database_key)
            .variable("SESSION_SEED", &*self.secrets.session_seed)
    }

    fn worker(&self, name: &str, internal_port: u16) -> Launch {
        self.with_store(self.role(name, "worker", true))
            .arguments(["--internal-listen", &format!("127.0.0.1:{internal_port}")])
            .variable("INTERNAL_CREDENTIAL", &*self.secrets.internal)
            .variable("REDIS_URL", &*self.redis_url)
            .variable("DATABASE_KEY", &*self.secrets.database_key)
            .variable("DIRECTORY_KEY", &*self.secrets.directory_key)
    }

    fn api(&self, port: u16, internal_port: u16) -> Launch {
        self.with_store(self.role(API, "api", true))
            .arguments(["--listen", &format!("127.0.0.1:{port}")])
            .arguments(["--internal-listen", &format!("127.0.0.1:{internal_port}")])
            .variable("INTERNAL_CREDENTIAL", &*self.secrets.internal)
    }

    fn with_store(&self, launch: Launch) -> Launch {
        launch
            .variable("S3_ENDPOINT", &*self.store_endpoint)
            .variable("S3_BUCKET", BUCKET)
            .variable("S3_ACCESS_KEY", &*self.secrets.store_access_key)
            .variable("S3_SECRET_KEY", &*self.secrets.store_secret_key)
    }

    fn role(&self, name: &str, role: &str, clock: bool) -> Launch {
        let mut launch =
            Launch::new(name, &self.program).arguments([role]).variable("DATABASE_URL", &*self.postgres_url);
        if clock && self.clock_offset != 0 {
            launch = launch.arguments([format!("--clock-offset={}", self.clock_offset)]);
        }
        launch
    }
}

impl Control {
    /// Starts worker and api and waits until they are healthy.
    pub(super) async fn start(settings: Settings, ports: &mut Ports, spawner: &Spawner) -> anyhow::Result<Self> {
        let api_port = ports.claim("control-api")?;
        let internal = InternalPorts {
            api: ports.claim("control-api-internal")?,
            worker: ports.claim("control-worker-internal")?,
            second_worker: ports.claim("control-worker-2-internal")?,
        };
        let worker = spawner.start(&settings.worker(WORKER, internal.worker)).await?;
        let api = spawner.start(&settings.api(api_port, internal.api)).await?;
        let mut control = Self { api_port, settings, internal, worker, api };
        control.wait_until_healthy(spawner).await?;
        Ok(control)
    }

    /// Address of the api role's internal listener.
    #[must_use]
    pub fn internal_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.internal.api)
    }

    /// Address of the worker's internal listener.
    #[must_use]
    pub fn worker_internal_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.internal.worker)
    }

    /// Address of the second worker's internal listener, when there is one.
    #[must_use]
    pub fn second_worker_internal_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.internal.second_worker)
    }

    /// Worker and api, for faults.
    pub fn processes(&mut self) -> [&mut Child; 2] {
        [&mut self.worker, &mut self.api]
    }

    /// Kills the worker without a chance to tidy up and starts it again.
    ///
    /// # Errors
    /// When the new one does not become healthy.
    pub async fn replace_worker(&mut self, spawner: &Spawner) -> anyhow::Result<()> {
        self.worker.kill()?;
        self.start_worker_again(spawner).await
    }

    /// Starts the worker again after it ended.
    ///
    /// # Errors
    /// When it does not become healthy.
    pub async fn start_worker_again(&mut self, spawner: &Spawner) -> anyhow::Result<()> {
        self.worker = spawner.start(&self.settings.worker(WORKER, self.internal.worker)).await?;
        self.wait_until_healthy(spawner).await
    }

    /// Stops both and starts them with clocks that run ahead by so much more.
    ///
    /// # Errors
    /// When they do not stop, or do not become healthy again.
    pub async fn advance_clock(&mut self, seconds: i64, spawner: &Spawner) -> anyhow::Result<()> {
        self.stop().await?;
        self.settings.clock_offset += seconds;
        self.worker = spawner.start(&self.settings.worker(WORKER, self.internal.worker)).await?;
        self.api = spawner.start(&self.settings.api(self.api_port, self.internal.api)).await?;
        self.wait_until_healthy(spawner).await
    }

    /// Starts a worker beside the first one, which competes with it for every duty, and waits until it is healthy; its
    /// clock runs ahead by so much more.
    ///
    /// # Errors
    /// When it does not become healthy.
    pub async fn second_worker(&self, seconds: i64, spawner: &Spawner) -> anyhow::Result<Child> {
        let mut settings = self.settings.clone();
        settings.clock_offset += seconds;
        let mut worker = spawner.start(&settings.worker(SECOND_WORKER, self.internal.second_worker)).await?;
        let see = || format!("see {}", spawner.log(SECOND_WORKER).display());
        web::wait_until_healthy(self.internal.second_worker, &mut worker).await.with_context(see)?;
        Ok(worker)
    }

    /// Stops both.
    ///
    /// # Errors
    /// When one had to be killed.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        let (worker, api) = tokio::join!(self.worker.stop(Signal::TERM, STOP), self.api.stop(Signal::TERM, STOP));
        worker.and(api)
    }

    async fn wait_until_healthy(&mut self, spawner: &Spawner) -> anyhow::Result<()> {
        let see = |name: &str| format!("see {}", spawner.log(name).display());
        web::wait_until_healthy(self.internal.api, &mut self.api).await.with_context(|| see(API))?;
        web::wait_until_healthy(self.internal.worker, &mut self.worker).await.with_context(|| see(WORKER))
    }
}
