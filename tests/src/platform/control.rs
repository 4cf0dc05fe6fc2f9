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
    internal_port: u16,
    worker: Child,
    worker_launch: Launch,
    worker_internal_port: u16,
    api: Child,
    second_worker: Launch,
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
        self.with_store(self.role("control-api", "api", true))
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
        let (api_port, internal_port) = (ports.claim("control-api")?, ports.claim("control-api-internal")?);
        let worker_internal_port = ports.claim("control-worker-internal")?;
        let second_worker = settings.worker("control-worker-2", ports.claim("control-worker-2-internal")?);
        let worker_launch = settings.worker("control-worker", worker_internal_port);
        let worker = spawner.start(&worker_launch).await?;
        let api = spawner.start(&settings.api(api_port, internal_port)).await?;
        let mut control = Self {
            api_port,
            internal_port,
            worker,
            worker_launch,
            worker_internal_port,
            api,
            second_worker,
        };
        let api_log = spawner.log("control-api");
        web::wait_until_healthy(internal_port, &mut control.api)
            .await
            .with_context(|| format!("see {}", api_log.display()))?;
        control.wait_for_worker(spawner).await?;
        Ok(control)
    }

    /// Address of the api role's internal listener.
    #[must_use]
    pub fn internal_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.internal_port)
    }

    /// Address of the worker's internal listener.
    #[must_use]
    pub fn worker_internal_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.worker_internal_port)
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
        self.worker = spawner.start(&self.worker_launch).await?;
        self.wait_for_worker(spawner).await
    }

    /// Starts a worker beside the first one, which competes with it for every duty.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn second_worker(&self, spawner: &Spawner) -> anyhow::Result<Child> {
        spawner.start(&self.second_worker).await
    }

    /// Stops both.
    ///
    /// # Errors
    /// When one had to be killed.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        let (worker, api) =
            tokio::join!(self.worker.stop(Signal::TERM, STOP), self.api.stop(Signal::TERM, STOP));
        worker.and(api)
    }

    async fn wait_for_worker(&mut self, spawner: &Spawner) -> anyhow::Result<()> {
        let log = spawner.log("control-worker");
        web::wait_until_healthy(self.worker_internal_port, &mut self.worker)
            .await
            .with_context(|| format!("see {}", log.display()))
    }
}
