//! Builds the program from its settings and runs it until it is told to stop.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use pingora::listeners::Listeners;
use pingora::proxy::HttpProxy;
use pingora::server::configuration::ServerConf;
use pingora::server::{RunArgs, Server, ShutdownWatch};
use pingora::services::listening::Service as Listening;
use protocol::session::SessionVerifier;
use protocol::signing::Keypair;
use tracing::info;

use crate::auth::Auth;
use crate::call::intake::Intake;
use crate::call::place::Places;
use crate::call::upstream::Network;
use crate::call::{Calls, Patience};
use crate::clock::Clock;
use crate::config::Config;
use crate::directory::Directory;
use crate::edge::admission::Admission;
use crate::edge::connections::{Connections, Limits as ConnectionLimits};
use crate::edge::memory::Memory;
use crate::edge::{BeforeTls, Door};
use crate::forward::Services;
use crate::host::Hosts;
use crate::internal::Internal;
use crate::lifecycle::{Lifecycle, Stop};
use crate::limit::{Allowance, Limits, Quota};
use crate::metrics::Metrics;
use crate::principals::Principals;
use crate::proxy::Proxy;
use crate::strikes::{self, Reporter, Strikes};
use crate::tls::Certificates;
use crate::usage::{self, UsageLog};

/// How long runtimes get to end once everything in them has.
const LAST_SECONDS: u64 = 2;
/// How often strikes of instances that are gone are forgotten.
const FORGET: Duration = Duration::from_secs(30);
/// How long a duty that ships records may take to finish when it is told to stop.
const CLOSE_LOG: Duration = Duration::from_secs(1);

/// The parts that run as long as the program does.
struct Parts {
    clock: Clock,
    metrics: Arc<Metrics>,
    lifecycle: Arc<Lifecycle>,
    directory: Arc<Directory>,
    principals: Arc<Principals>,
    limits: Arc<Limits>,
    quota: Arc<Quota>,
    places: Arc<Places>,
    certificates: Arc<Certificates>,
    memory: Arc<Memory>,
    admission: Arc<Admission>,
    log: UsageLog,
    strikes: Strikes,
    reporter: Arc<Reporter>,
}

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
    let internal = parts.internal(config);
    let mut listening = Listening::new("internal".into(), internal);
    listening.add_tcp(&config.internal.to_string());
    listening.threads = Some(1);
    server.add_service(listening);
    let mut proxy = HttpProxy::new(parts.proxy(config)?, server.configuration.clone());
    proxy.handle_init_modules();
    let door = Door::new(proxy, &config.edge, parts.admission.clone(), parts.metrics.clone());
    let edge = Listening::with_listeners("edge".into(), parts.listeners(config)?, door);
    server.add_service(lifecycle.accepting(edge));
    info!(domain = config.domain, "starting");
    server.run(RunArgs { shutdown_signal: Box::new(Stop(lifecycle.clone())) });
    ensure!(!lifecycle.is_broken(), "a duty ended although nobody told it to");
    Ok(())
}

impl Parts {
    fn new(config: &Config) -> anyhow::Result<Self> {
        let clock = clock(config);
        let metrics = Arc::new(Metrics::new()?);
        let principals = Principals::new(config, metrics.clone())?;
        let log = UsageLog::open(log_settings(config), clock, metrics.clone()).context("opening the record log")?;
        let redis = redis::Client::open(config.redis_url.as_str()).context("reading the Redis address")?;
        let (strikes, reporter) = strikes::channel(redis);
        let memory = Arc::new(memory(config, &metrics)?);
        let default = Allowance { per_minute: config.limits.rate_per_minute, at_once: config.limits.max_concurrent };
        Ok(Self {
            clock,
            lifecycle: Lifecycle::new(config.client.drain),
            directory: Directory::new(config, clock, metrics.clone())?,
            limits: Arc::new(Limits::new(default)),
            quota: Arc::new(Quota::new(principals.clone(), log.writer())),
            places: Arc::new(Places::new(config.instances.strike)),
            certificates: Certificates::load(&config.certificates, &config.domain)?,
            admission: admission(config, &memory, &metrics),
            memory,
            principals,
            metrics,
            log,
            strikes,
            reporter,
        })
    }

    fn listeners(&self, config: &Config) -> anyhow::Result<Listeners> {
        let mut listeners = Listeners::new();
        for address in &config.https {
            listeners.add_tls_with_settings(&address.to_string(), None, self.certificates.listener()?);
        }
        for address in &config.http {
            listeners.add_tcp(&address.to_string());
        }
        listeners.set_pre_tls_callback(Arc::new(BeforeTls(self.admission.clone())));
        Ok(listeners)
    }

    fn proxy(&self, config: &Config) -> anyhow::Result<Proxy> {
        Ok(Proxy {
            hosts: Hosts::new(&config.domain),
            services: services(config),
            calls: self.calls(config)?,
            admission: self.admission.clone(),
            largest_head: config.edge.largest(),
            lifecycle: self.lifecycle.clone(),
            client_silence: config.client.client_silence,
            client_stall: config.client.client_stall,
        })
    }

    fn calls(&self, config: &Config) -> anyhow::Result<Calls<Network>> {
        let mut session_key = [0; 32];
        hex::decode_to_slice(&config.session_public_key, &mut session_key).context("reading the session key")?;
        let sessions = SessionVerifier::new(session_key);
        let signer = Keypair::from_seed_hex(config.call_key_seed.reveal()).context("reading the call key")?;
        Ok(Calls {
            clock: self.clock,
            directory: self.directory.clone(),
            auth: Auth::new(self.principals.clone(), sessions, self.clock),
            limits: self.limits.clone(),
            quota: self.quota.clone(),
            intake: Intake::new(config.client.max_body, config.client.max_bodies, config.client.body_seconds),
            places: self.places.clone(),
            instances: Network::new(config.instances.source, config.instances.connect),
            log: self.log.clone(),
            strikes: self.strikes.clone(),
            signer: Arc::new(signer),
            patience: Patience {
                first_chunk: config.instances.first_chunk,
                idle: config.instances.idle,
                largest: config.instances.max_answer,
            },
            metrics: self.metrics.clone(),
        })
    }

    fn internal(&self, config: &Config) -> Internal {
        let (directory, metrics) = (self.directory.clone(), self.metrics.clone());
        Internal::new(config.internal_credential.clone(), self.metrics.clone(), move || {
            if directory.current().is_none() {
                return Err("the directory has not come yet");
            }
            if metrics.who.principals_connected.get() == 0 {
                return Err("principals are not followed");
            }
            if metrics.record.writable.get() == 0 { Err("the record log cannot be written") } else { Ok(()) }
        })
    }

    fn add_duties(&self, server: &mut Server, config: &Config) -> anyhow::Result<()> {
        let lifecycle = &self.lifecycle;
        let redis = redis::Client::open(config.redis_url.as_str()).context("reading the Redis address")?;
        let record = Arc::new(usage::Service::new(&self.log, redis, CLOSE_LOG));
        server.add_service(lifecycle.duty("record", move |stop| {
            let record = record.clone();
            async move { record.run(stop).await }
        }));
        let directory = self.directory.clone();
        server.add_service(lifecycle.duty("directory", move |stop| until(stop, directory.clone().follow())));
        let principals = self.principals.clone();
        server.add_service(lifecycle.duty("principals", move |stop| until(stop, principals.clone().follow())));
        let memory = self.memory.clone();
        server.add_service(lifecycle.duty("memory", move |stop| until(stop, memory.clone().follow())));
        let certificates = self.certificates.clone();
        server.add_service(lifecycle.duty("certificates", move |stop| certificates.clone().follow(stop)));
        let reporter = self.reporter.clone();
        server.add_service(lifecycle.duty("reports", move |stop| reporter.clone().run(stop)));
        let (limits, quota, clock) = (self.limits.clone(), self.quota.clone(), self.clock);
        let (places, directory) = (self.places.clone(), self.directory.clone());
        server.add_service(lifecycle.duty("sweep", move |stop| {
            let forget = forget_instances(places.clone(), directory.clone());
            let sweeps = (limits.clone().sweep_always(clock), quota.clone().sweep_always(clock), forget);
            until(stop, async move {
                tokio::join!(sweeps.0, sweeps.1, sweeps.2);
            })
        }));
        Ok(())
    }
}

/// Runs a task that needs no flushing until told to stop.
async fn until(mut stop: ShutdownWatch, task: impl Future<Output = ()>) {
    tokio::select! {
        // An error means that nobody is left to tell us to stop.
        _ = stop.wait_for(|stop| *stop) => {}
        () = task => {}
    }
}

async fn forget_instances(places: Arc<Places>, directory: Arc<Directory>) {
    loop {
        tokio::time::sleep(FORGET).await;
        if let Some(routes) = directory.current() {
            places.keep(|instance| routes.has_instance(instance));
        }
    }
}

fn memory(config: &Config, metrics: &Arc<Metrics>) -> anyhow::Result<Memory> {
    let edge = &config.edge;
    Memory::new(edge.memory_budget, edge.memory_no_calls, edge.memory_no_connections, metrics.clone())
}

fn admission(config: &Config, memory: &Arc<Memory>, metrics: &Arc<Metrics>) -> Arc<Admission> {
    let limits = ConnectionLimits {
        all: config.edge.max_connections,
        per_address: config.edge.max_connections_per_address,
        exempt: config.client.trusted_peers.clone(),
    };
    let connections = Connections::new(limits, metrics.edge.connections.clone());
    Admission::new(config.edge.max_lag, connections, memory.clone(), metrics.clone())
}

fn clock(config: &Config) -> Clock {
    #[cfg(debug_assertions)]
    let clock = Clock::ahead(config.clock_offset);
    #[cfg(not(debug_assertions))]
    let clock = {
        let _ = config;
        Clock::default()
    };
    clock
}

fn services(config: &Config) -> Services {
    Services {
        api: config.api_upstream,
        registry: config.registry_upstream,
        ws: config.ws_upstream,
        events: config.events_upstream,
        trusted: config.client.trusted_peers.clone(),
    }
}

fn log_settings(config: &Config) -> usage::Settings {
    usage::Settings {
        folder: config.record.folder.clone(),
        segment: config.record.segment,
        max_calls: config.record.max_calls,
        keep: config.record.keep,
    }
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
