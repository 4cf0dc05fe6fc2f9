//! Builds the program from its settings and runs it until it is told to stop.

mod duties;
mod parts;

use anyhow::{Context, ensure};
use pingora::proxy::HttpProxy;
use pingora::server::configuration::ServerConf;
use pingora::server::{RunArgs, Server};
use pingora::services::listening::Service as Listening;
use tracing::info;

use crate::config::Config;
use crate::edge::Door;
use crate::leaving::{Counted, Patient};
use crate::lifecycle::Stop;

use self::parts::Parts;

/// How long runtimes get to end once everything in them has.
const LAST_SECONDS: u64 = 2;

/// Runs the gateway.
///
/// # Errors
/// When a setting is wrong, something it names is not there, or a duty ended by itself.
pub fn run(config: &Config) -> anyhow::Result<()> {
    let parts = Parts::new(config)?;
    let lifecycle = parts.lifecycle.clone();
    let mut server = Server::new_with_opt_and_conf(None, server_conf(config)?);
    server.bootstrap();
    parts.add_duties(&mut server, config)?;
    let mut internal = Listening::new("internal".into(), parts.internal(config));
    internal.add_tcp(&config.internal.to_string());
    internal.threads = Some(1);
    server.add_service(parts.upgrade.accepting(internal, lifecycle.unwatched()));
    let mut proxy = HttpProxy::new(parts.proxy(config)?, server.configuration.clone());
    proxy.handle_init_modules();
    let proxy = Patient::new(proxy, lifecycle.clone());
    let stall = config.client.client_stall;
    let door = Door::new(proxy, &config.edge, stall, parts.admission.clone(), parts.metrics.clone());
    let app = Counted::new(door, lifecycle.clone());
    let edge = Listening::with_listeners("edge".into(), parts.listeners(config)?, app);
    server.add_service(parts.upgrade.accepting(edge, lifecycle.stopping()));
    parts.add_upgrade(&mut server);
    info!(domain = config.domain, "starting");
    server.run(RunArgs { shutdown_signal: Box::new(Stop(lifecycle.clone())) });
    ensure!(!lifecycle.is_broken(), "a duty ended although nobody told it to");
    Ok(())
}

fn server_conf(config: &Config) -> anyhow::Result<ServerConf> {
    let threads = match config.threads {
        0 => std::thread::available_parallelism().context("counting the cores")?.get(),
        threads => threads,
    };
    // The life cycle has waited for everything before the framework begins to stop.
    Ok(ServerConf {
        threads,
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(LAST_SECONDS),
        max_retries: 2,
        ..ServerConf::default()
    })
}
