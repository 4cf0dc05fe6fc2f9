//! A private PostgreSQL cluster that starts again on its data.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::{Signal, geteuid};

use crate::children::{Child, Launch, Spawner, run};
use crate::private;
use crate::secrets::Secrets;

/// Who runs the server when we are root, as which it refuses to run.
const SERVER_USER: &str = "postgres";
/// The role and the database of control.
const ROLE: &str = "chutes";
const PROGRAMS: &str = "/usr/lib/postgresql";
const SHORT: Duration = Duration::from_secs(60);
const READY: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(30);

/// A running PostgreSQL.
pub struct Postgres {
    launch: Launch,
    child: Child,
    cluster: Cluster,
    port: u16,
    url: String,
}

/// Where a cluster lies and who runs it.
struct Cluster {
    programs: PathBuf,
    data: PathBuf,
    user: Option<&'static str>,
}

impl Postgres {
    /// Starts the cluster of a folder, made at its first start, and waits until it answers.
    ///
    /// When the server's user cannot enter the folder, the data lies below `state` instead.
    ///
    /// # Errors
    /// When PostgreSQL is missing, cannot be started or does not answer.
    pub async fn start(
        folder: &Path,
        state: &Path,
        port: u16,
        secrets: &Secrets,
        spawner: &Spawner,
    ) -> anyhow::Result<Self> {
        let cluster = Cluster::find(folder, state).await?;
        cluster.make_if_absent(secrets).await.context("making the PostgreSQL cluster")?;
        let launch = cluster.server(port);
        let child = spawner.start(&launch).await?;
        let url = format!("postgres://{ROLE}:{}@127.0.0.1:{port}/{ROLE}", secrets.postgres);
        let mut postgres = Self { launch, child, cluster, port, url };
        postgres.wait_until_ready().await.with_context(|| format!("see {}", spawner.log("postgres").display()))?;
        postgres.make_database_if_absent(secrets).await.context("making the database")?;
        Ok(postgres)
    }

    /// Address of control's database with its password.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The process, for faults.
    pub fn process(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Where its data lies.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.cluster.data
    }

    /// Stops it with all its connections and starts it again.
    ///
    /// # Errors
    /// When it does not come back.
    pub async fn restart(&mut self, spawner: &Spawner) -> anyhow::Result<()> {
        self.stop().await?;
        self.start_again(spawner).await
    }

    /// Ends it at once, as a crash does: all its processes are gone, and nothing is written that was not.
    ///
    /// # Errors
    /// When it had to be killed.
    pub async fn crash(&mut self) -> anyhow::Result<()> {
        // KILL would end only the first of its processes.
        self.child.stop(Signal::QUIT, STOP).await
    }

    /// Starts it on its data after it ended.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn start_again(&mut self, spawner: &Spawner) -> anyhow::Result<()> {
        self.child = spawner.start(&self.launch).await?;
        self.wait_until_ready().await
    }

    /// Stops it; connections are cut, nothing committed is lost.
    ///
    /// # Errors
    /// When it had to be killed.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        self.child.stop(Signal::INT, STOP).await
    }

    async fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let port = self.port.to_string();
        let ask = Launch::new("pg_isready", self.cluster.programs.join("pg_isready")).arguments([
            "--quiet",
            "--host",
            "127.0.0.1",
            "--port",
            &port,
        ]);
        let deadline = tokio::time::Instant::now() + READY;
        while run(&ask, SHORT).await.is_err() {
            if let Some(status) = self.child.ended()? {
                bail!("postgres ended at once ({status})");
            }
            if tokio::time::Instant::now() > deadline {
                bail!("postgres does not answer");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    async fn make_database_if_absent(&self, secrets: &Secrets) -> anyhow::Result<()> {
        let exists = self.superuser(secrets, "select 1 from pg_database where datname = 'chutes'").await?;
        if exists.trim() == "1" {
            return Ok(());
        }
        // The password is hex of our own making: it needs no quoting.
        let password = &secrets.postgres;
        self.superuser(secrets, &format!("create role {ROLE} login password '{password}'")).await?;
        self.make_database(secrets).await
    }

    async fn make_database(&self, secrets: &Secrets) -> anyhow::Result<()> {
        self.superuser(secrets, &format!("create database {ROLE} owner {ROLE}")).await.map(drop)
    }

    /// Throws away what is in the database.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn empty(&self, secrets: &Secrets) -> anyhow::Result<()> {
        self.superuser(secrets, &format!("drop database {ROLE} with (force)")).await?;
        self.make_database(secrets).await
    }

    async fn superuser(&self, secrets: &Secrets, statement: &str) -> anyhow::Result<String> {
        let port = self.port.to_string();
        // Not as an argument: those are for everybody on the machine to see.
        let file = tempfile::NamedTempFile::new().context("making a temporary file")?;
        std::fs::write(file.path(), statement).context("writing a temporary file")?;
        let launch = Launch::new("psql", self.cluster.programs.join("psql"))
            .arguments(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set", "ON_ERROR_STOP=1"])
            .arguments(["--host", "127.0.0.1", "--port", &port, "--username", SERVER_USER, "--dbname", "postgres"])
            .arguments(["--file", &file.path().display().to_string()])
            .variable("PGPASSWORD", secrets.postgres_superuser.clone());
        run(&launch, SHORT).await
    }
}

impl Cluster {
    async fn find(folder: &Path, state: &Path) -> anyhow::Result<Self> {
        let programs = newest_programs()?;
        let near = folder.join("postgres");
        if !geteuid().is_root() {
            return Ok(Self { programs, data: near, user: None });
        }
        let data = if may_enter(folder).await { near } else { state.join("postgres").join(name_in(folder)?) };
        Ok(Self { programs, data, user: Some(SERVER_USER) })
    }

    async fn make_if_absent(&self, secrets: &Secrets) -> anyhow::Result<()> {
        if self.data.join("PG_VERSION").exists() {
            return Ok(());
        }
        if let Some(parent) = self.data.parent() {
            std::fs::DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
        }
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.data)?;
        let password = self.data.with_extension("password");
        private::write(&password, secrets.postgres_superuser.as_bytes())?;
        if let Some(user) = self.user {
            let owned = [self.data.display().to_string(), password.display().to_string()];
            run(&Launch::new("chown", "/bin/chown").arguments([user]).arguments(owned), SHORT).await?;
        }
        let initialise = Launch::new("initdb", self.programs.join("initdb"))
            .arguments(["--username", SERVER_USER, "--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C"])
            .arguments(["--pwfile", &password.display().to_string(), "--pgdata", &self.data.display().to_string()])
            .user(self.user);
        let made = run(&initialise, SHORT).await;
        std::fs::remove_file(&password)?;
        made.map(drop)
    }

    fn server(&self, port: u16) -> Launch {
        let mut launch = Launch::new("postgres", self.programs.join("postgres"))
            .arguments(["-D", &self.data.display().to_string(), "-p", &port.to_string()])
            .arguments(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="])
            .arguments(["-c", "max_connections=100"])
            // Ten minutes of records are written without a checkpoint, and their indexes fit.
            .arguments(["-c", "shared_buffers=256MB", "-c", "max_wal_size=4GB"])
            .user(self.user);
        // Cuts connections and writes what is committed, where KILL would leave its children behind.
        launch.orphaned = "INT";
        launch
    }
}

/// Whether the server's user gets into a folder of ours.
async fn may_enter(folder: &Path) -> bool {
    let test = Launch::new("test", "/usr/bin/test").arguments(["-x", &folder.display().to_string()]);
    run(&test.user(Some(SERVER_USER)), SHORT).await.is_ok()
}

/// A name for the data of this folder among those of others; a folder made anew gets another one.
fn name_in(folder: &Path) -> anyhow::Result<String> {
    let file = folder.join("postgres.name");
    if !file.exists() {
        private::write(&file, uuid::Uuid::new_v4().simple().to_string().as_bytes())?;
    }
    let name = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    uuid::Uuid::try_parse(&name).with_context(|| format!("{} does not hold a name", file.display()))?;
    Ok(name)
}

fn newest_programs() -> anyhow::Result<PathBuf> {
    let versions = std::fs::read_dir(PROGRAMS).context("PostgreSQL is missing; install the package postgresql")?;
    let numbered = versions.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let newest = numbered.max().context("PostgreSQL is missing; install the package postgresql")?;
    Ok(Path::new(PROGRAMS).join(newest.to_string()).join("bin"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn a_cluster_starts_again_on_its_data() {
        let folder = tempfile::tempdir().unwrap();
        let state = tempfile::tempdir().unwrap();
        std::fs::set_permissions(state.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let secrets = Secrets::of_folder(folder.path()).unwrap();
        let spawner = Spawner::new(folder.path().to_owned()).unwrap();
        let port = crate::ports::Ports::of_folder(folder.path()).unwrap().claim("postgres").unwrap();
        let start = || Postgres::start(folder.path(), state.path(), port, &secrets, &spawner);
        let mut first = start().await.unwrap();
        first.superuser(&secrets, "create table kept ()").await.unwrap();
        first.stop().await.unwrap();
        let mut second = start().await.unwrap();
        second.superuser(&secrets, "select * from kept").await.unwrap();
        second.restart(&spawner).await.unwrap();
        second.superuser(&secrets, "select * from kept").await.unwrap();
        second.empty(&secrets).await.unwrap();
        second.stop().await.unwrap();
    }

    #[test]
    fn data_that_lies_elsewhere_is_found_again_by_its_folder_alone() {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let [first, other] = folders.each_ref().map(|folder| name_in(folder.path()).unwrap());
        assert_eq!(name_in(folders[0].path()).unwrap(), first);
        assert_ne!(first, other);
    }
}
