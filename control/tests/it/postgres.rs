//! A private PostgreSQL for one test run, with a database per test.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use uuid::Uuid;

/// How long the server may take to start on a busy machine.
const START_TIMEOUT: Duration = Duration::from_secs(120);

/// A migrated database of its own.
pub(crate) struct Database {
    /// Where it is.
    pub(crate) url: String,
    /// Connections to it.
    pub(crate) pool: PgPool,
}

impl Database {
    /// Makes a copy of the migrated template.
    pub(crate) async fn new() -> Self {
        let server = tokio::task::spawn_blocking(server).await.unwrap();
        let name = format!("test_{}", Uuid::new_v4().simple());
        let admin = connect(&url(&server, "postgres")).await;
        execute(&admin, format!("create database {name} template template_control")).await;
        admin.close().await;
        let url = url(&server, &name);
        let pool = control::db::pool(&url).unwrap();
        Self { url, pool }
    }
}

/// The URL pattern of this run's server; the first caller starts it.
///
/// Under nextest each test is a process, so the server is shared by the run's id and watched by the runner's process.
fn server() -> String {
    let run = run_id();
    let watched = if run.is_some() { std::os::unix::process::parent_id() } else { std::process::id() };
    let name = format!("control-tests-{}", run.unwrap_or_else(|| std::process::id().to_string()));
    let folder = std::env::temp_dir().join(name);
    fs::create_dir_all(&folder).unwrap();
    let lock = File::create(folder.join("lock")).unwrap();
    lock.lock().unwrap();
    let ready = folder.join("ready");
    if !ready.exists() {
        start(&folder, watched);
        File::create(&ready).unwrap();
    }
    fs::read_to_string(folder.join("url")).unwrap().trim().to_owned()
}

#[expect(clippy::zombie_processes, reason = "the server outlives the test that starts it; the script ends it")]
fn start(folder: &Path, watched: u32) {
    let complaints = folder.join("complaints");
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("private-postgres");
    let mut child = Command::new("setsid")
        .arg(script)
        .arg(folder)
        .arg(watched.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(&complaints).unwrap())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while !folder.join("url").exists() {
        assert!(child.try_wait().unwrap().is_none(), "see {}", complaints.display());
        assert!(begun.elapsed() < START_TIMEOUT, "PostgreSQL does not start");
        std::thread::sleep(Duration::from_millis(50));
    }
    let pattern = fs::read_to_string(folder.join("url")).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let admin = connect(&url(pattern.trim(), "postgres")).await;
        execute(&admin, "create database template_control".to_owned()).await;
        admin.close().await;
        control::db::migrate(&url(pattern.trim(), "template_control")).await.unwrap();
    });
}

fn url(pattern: &str, database: &str) -> String {
    pattern.replace("{database}", database)
}

async fn connect(url: &str) -> PgPool {
    PgPoolOptions::new().max_connections(1).connect(url).await.unwrap()
}

async fn execute(db: &PgPool, statement: String) {
    sqlx::query(sqlx::AssertSqlSafe(statement)).execute(db).await.unwrap();
}

#[expect(clippy::disallowed_methods, reason = "only the runner knows whether tests are processes")]
fn run_id() -> Option<String> {
    std::env::var("NEXTEST_RUN_ID").ok()
}
