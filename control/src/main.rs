//! Picks the role and runs it.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::{CommandFactory, Parser};

use control::admin::Admin;
use control::clients::board::Board;
use control::clients::bus;
use control::clients::store::Store;
use control::clients::usage_stream::UsageStream;
use control::config::{self, Config, Role};
use control::lifecycle::Lifecycle;
use control::metrics::Metrics;
use control::state::State;
use control::task::export_hour::ExportHours;
use control::task::ingest_usage::IngestUsage;
use control::task::publish_directory::{Keys, PublishDirectory};
use control::task::publish_principals::PublishPrincipals;
use control::task::{self, Task};
use control::{db, http, telemetry};
use protocol::sealing::DirectoryKey;

/// How long a stopping process waits for its duties and routes.
const GRACE: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    let config = Config::parse();
    if config.build_id {
        return print(option_env!("CHUTES_BUILD_ID").unwrap_or("unset"));
    }
    let Some(role) = config.role else {
        return print(Config::command().render_help());
    };
    match run(role, &config.log) {
        Ok(code) => code,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "ended");
            ExitCode::FAILURE
        }
    }
}

/// Sets up what every role needs and runs the role to its end.
fn run(role: Role, log: &str) -> anyhow::Result<ExitCode> {
    telemetry::install(log)?;
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("a TLS provider is installed already"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")?;
    runtime.block_on(async {
        match role {
            Role::Migrate(database) => db::migrate(database.database_url.reveal()).await?,
            Role::Worker(settings) => worker(settings).await?,
            Role::Api(settings) => api(settings).await?,
            Role::Admin(settings) => {
                let done = Admin::from_config(&settings)?.run(settings.command).await?;
                return Ok(if done { ExitCode::SUCCESS } else { ExitCode::FAILURE });
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// Does the duties.
async fn worker(settings: config::Worker) -> anyhow::Result<()> {
    let state = state(&settings.database, &settings.time)?;
    let mut lifecycle = Lifecycle::new()?;
    serve_internal(&mut lifecycle, &settings.internal, &state).await?;
    let board = Board::new(bus::connect(settings.redis.redis_url.reveal())?);
    let keys = Keys::new(
        DirectoryKey::from_hex(settings.database_key.database_key.reveal()).context("reading the database key")?,
        DirectoryKey::from_hex(settings.directory_key.reveal()).context("reading the directory key")?,
    );
    let (db, metrics) = (&state.db, &state.metrics);
    let directory =
        PublishDirectory::new(db.clone(), board.clone(), keys, settings.official_users, Arc::clone(metrics));
    lifecycle.spawn(PublishDirectory::NAME, task::drive(directory, state.clone(), lifecycle.stopping()));
    let principals = PublishPrincipals::new(db.clone(), board, Arc::clone(metrics));
    lifecycle.spawn(PublishPrincipals::NAME, task::drive(principals, state.clone(), lifecycle.stopping()));
    keep_record(&mut lifecycle, &settings.redis, &settings.store, &state)?;
    lifecycle.run(GRACE).await
}

/// Does the duties of the record: what gateways report goes into Postgres, and from there into the hourly files.
fn keep_record(
    lifecycle: &mut Lifecycle,
    redis: &config::Redis,
    objects: &config::Store,
    state: &State,
) -> anyhow::Result<()> {
    let url = redis.redis_url.reveal();
    let usage = UsageStream::new(bus::connect(url)?, bus::connect(url)?);
    let ingest = IngestUsage::new(state.db.clone(), usage, Arc::clone(&state.metrics));
    lifecycle.spawn(IngestUsage::NAME, task::drive(ingest, state.clone(), lifecycle.stopping()));
    let export = ExportHours::new(state.db.clone(), store(objects), Arc::clone(&state.metrics));
    lifecycle.spawn(ExportHours::NAME, task::drive(export, state.clone(), lifecycle.stopping()));
    Ok(())
}

/// Serves the public routes.
async fn api(settings: config::Api) -> anyhow::Result<()> {
    let state = state(&settings.database, &settings.time)?;
    let mut lifecycle = Lifecycle::new()?;
    serve_internal(&mut lifecycle, &settings.internal, &state).await?;
    let listener = http::listen(settings.listen).await?;
    lifecycle.spawn(
        "public listener",
        http::serve(listener, http::public(state, store(&settings.store)), lifecycle.stopping()),
    );
    lifecycle.run(GRACE).await
}

fn store(settings: &config::Store) -> Store {
    Store::new(
        &settings.s3_endpoint,
        &settings.s3_bucket,
        &settings.s3_region,
        settings.s3_access_key.reveal(),
        settings.s3_secret_key.reveal(),
    )
}

fn state(database: &config::Database, time: &config::Time) -> anyhow::Result<State> {
    Ok(State {
        db: db::pool(database.database_url.reveal())?,
        clock: time.clock(),
        metrics: Arc::new(Metrics::new().context("registering metrics")?),
    })
}

async fn serve_internal(lifecycle: &mut Lifecycle, settings: &config::Internal, state: &State) -> anyhow::Result<()> {
    let listener = http::listen(settings.internal_listen).await?;
    let router = http::internal(state.clone(), settings.internal_credential.clone());
    lifecycle.spawn("internal listener", http::serve(listener, router, lifecycle.stopping()));
    Ok(())
}

/// Writes an answer to standard output.
fn print(answer: impl std::fmt::Display) -> ExitCode {
    match writeln!(std::io::stdout(), "{answer}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
