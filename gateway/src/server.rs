//! Builds the program from its settings and runs it until it is told to stop.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use pingora::listeners::{Listeners, TcpSocketOptions};
use pingora::proxy::HttpProxy;
use pingora::server::configuration::ServerConf;
use pingora::server::{RunArgs, Server, ShutdownWatch};
use pingora::services::listening::Service as Listening;
use protocol::sealing::DirectoryKey;
use protocol::session::SessionVerifier;
use protocol::signing::Keypair;
use tracing::info;

use crate::auth::Auth;
use crate::balance::Rule;
use crate::call::intake::Intake;
use crate::call::place::Places;
use crate::call::upstream::{Bounds, Network, Pool};
use crate::call::{Calls, Patience};
use crate::clock::Clock;
use crate::config::Config;
use crate::directory::Directory;
use crate::edge::admission::Admission;
use crate::edge::connections::{Connections, Limits as ConnectionLimits};
use crate::edge::memory::Memory;
use crate::edge::{BeforeTls, Door};
use crate::forward::{DEAD_PEERS, Services};
use crate::host::Hosts;
use crate::idempotent::{self, Answers};
use crate::internal::Internal;
use crate::lease::{Desk, Instances, Leases, Loads};
use crate::leaving::{Counted, Patient};
use crate::lifecycle::{self, Lifecycle, Stop};
use crate::limit::{Allowance, Limits, Quota};
use crate::metrics::Metrics;
use crate::principals::Principals;
use crate::proxy::Proxy;
use crate::reroll::Rerolls;
use crate::strikes::{self, Reporter, Strikes};
use crate::tls::Certificates;
use crate::upgrade::Upgrade;
use crate::usage::{self, UsageLog};

/// How long runtimes get to end once everything in them has.
const LAST_SECONDS: u64 = 2;
/// How often metrics say how instances stand.
const LOOK: Duration = Duration::from_secs(1);
/// Such looks after which what is known of instances and chutes that are gone is forgotten.
const FORGET: u32 = 30;
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
    desk: Arc<Desk>,
    loads: Arc<Loads>,
    slots: Arc<Instances>,
    places: Arc<Places>,
    certificates: Arc<Certificates>,
    memory: Arc<Memory>,
    admission: Arc<Admission>,
    log: UsageLog,
    strikes: Strikes,
    reporter: Arc<Reporter>,
    upgrade: Arc<Upgrade>,
    pool: Arc<Pool>,
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
    let mut internal = Listening::new("internal".into(), parts.internal(config));
    internal.add_tcp(&config.internal.to_string());
    internal.threads = Some(1);
    server.add_service(parts.upgrade.accepting(internal, lifecycle.unwatched()));
    let mut proxy = HttpProxy::new(parts.proxy(config)?, server.configuration.clone());
    proxy.handle_init_modules();
    let proxy = Patient::new(proxy, lifecycle.clone());
    let door = Door::new(proxy, &config.edge, parts.admission.clone(), parts.metrics.clone());
    let app = Counted::new(door, lifecycle.clone());
    let edge = Listening::with_listeners("edge".into(), parts.listeners(config)?, app);
    server.add_service(parts.upgrade.accepting(edge, lifecycle.stopping()));
    parts.add_upgrade(&mut server);
    info!(domain = config.domain, "starting");
    server.run(RunArgs { shutdown_signal: Box::new(Stop(lifecycle.clone())) });
    ensure!(!lifecycle.is_broken(), "a duty ended although nobody told it to");
    Ok(())
}

impl Parts {
    fn new(config: &Config) -> anyhow::Result<Self> {
        let clock = clock(config);
        let metrics = Arc::new(Metrics::new()?);
        let addresses = [&config.https[..], &config.http, &[config.internal]].concat();
        let upgrade = Upgrade::begin(&config.upgrade, addresses, metrics.clone())?;
        let principals = Principals::new(config, metrics.clone())?;
        let log = UsageLog::open(log_settings(config), clock, metrics.clone()).context("opening the record log")?;
        let redis = redis::Client::open(config.redis_url.as_str()).context("reading the Redis address")?;
        let (strikes, reporter) = strikes::channel(redis.clone());
        let (leases, questions) = Leases::new(config.limits.lease, metrics.clone());
        let memory = Arc::new(memory(config, &metrics)?);
        let default = Allowance { per_minute: config.limits.rate_per_minute, at_once: config.limits.max_concurrent };
        let limits = Arc::new(Limits::new(default, leases.clone()));
        let quota = Arc::new(Quota::new(principals.clone(), leases.clone(), log.writer()));
        let (slots, loads) = (Arc::new(Instances::new(leases.clone())), Arc::new(Loads::default()));
        let books = (limits.clone(), quota.clone(), slots.clone());
        Ok(Self {
            clock,
            desk: Desk::new(leases, questions, books, loads.clone(), redis, log.writer()),
            limits,
            quota,
            lifecycle: Lifecycle::new(lifecycle::Patience {
                drain: config.client.drain,
                replaced: config.upgrade.upgrade_drain,
                linger: config.upgrade.linger,
            }),
            directory: Directory::new(config, clock, metrics.clone())?,
            places: Arc::new(places(config, &slots, &loads, &metrics)),
            certificates: Certificates::load(&config.certificates, &config.domain, metrics.tls.clone())?,
            pool: Pool::new(bounds(config), metrics.clone()),
            admission: admission(config, &memory, &metrics),
            memory,
            principals,
            metrics,
            log,
            slots,
            loads,
            strikes,
            reporter,
            upgrade,
        })
    }

    fn listeners(&self, config: &Config) -> anyhow::Result<Listeners> {
        let mut listeners = Listeners::new();
        for address in &config.https {
            let tls = self.certificates.listener()?;
            listeners.add_tls_with_settings(&address.to_string(), Some(socket_options()), tls);
        }
        for address in &config.http {
            listeners.add_tcp_with_settings(&address.to_string(), socket_options());
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
            instances: Network::new(config.instances.source, config.instances.connect, self.pool.clone()),
            rerolls: Rerolls::new(config.calls.rerolls, config.calls.reroll),
            answers: self.answers(config)?,
            log: self.log.clone(),
            strikes: self.strikes.clone(),
            signer: Arc::new(signer),
            patience: Patience {
                first_chunk: config.instances.first_chunk,
                attempt: config.instances.attempt,
                idle: config.instances.idle,
                largest: config.instances.max_answer,
                keepalive: Some(config.calls.keepalive).filter(|pulse| !pulse.is_zero()),
            },
            metrics: self.metrics.clone(),
        })
    }

    fn answers(&self, config: &Config) -> anyhow::Result<Arc<Answers>> {
        let key = DirectoryKey::from_hex(config.directory_key.reveal()).context("reading the directory key")?;
        let (principals, metrics) = (self.principals.clone(), self.metrics.clone());
        Ok(Arc::new(Answers::new(principals, key.answer_key(), metrics, answer_settings(config))))
    }

    fn internal(&self, config: &Config) -> Internal {
        Internal::new(config.internal_credential.clone(), self.metrics.clone(), self.missing())
    }

    /// What is missing to serve calls, at the moment of asking.
    fn missing(&self) -> impl Fn() -> Option<&'static str> + Clone + Send + Sync + 'static {
        let (directory, metrics) = (self.directory.clone(), self.metrics.clone());
        move || {
            if directory.current().is_none() {
                Some("the directory has not come yet")
            } else if metrics.redis.principals.get() == 0 {
                Some("principals are not followed")
            } else if metrics.record.writable.get() == 0 {
                Some("the record log cannot be written")
            } else {
                None
            }
        }
    }

    fn add_upgrade(&self, server: &mut Server) {
        let (upgrade, lifecycle, missing) = (self.upgrade.clone(), self.lifecycle.clone(), self.missing());
        server.add_service(self.lifecycle.duty("upgrade", move |end| {
            let (upgrade, lifecycle, missing) = (upgrade.clone(), lifecycle.clone(), missing.clone());
            async move { upgrade.run(&lifecycle, missing, end).await }
        }));
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
        let desk = self.desk.clone();
        server.add_service(lifecycle.duty("leases", move |stop| desk.clone().run(stop)));
        let (limits, quota, clock) = (self.limits.clone(), self.quota.clone(), self.clock);
        let (places, pool, directory) = (self.places.clone(), self.pool.clone(), self.directory.clone());
        let (slots, loads, metrics) = (self.slots.clone(), self.loads.clone(), self.metrics.clone());
        server.add_service(lifecycle.duty("sweep", move |stop| {
            let known = (slots.clone(), loads.clone(), metrics.clone());
            let instances = look_after_instances(places.clone(), known, directory.clone());
            let pool = pool.clone().sweep_always(directory.clone());
            let (limits, quota) = (limits.clone().sweep_always(), quota.clone());
            let sweeps = (limits, quota.clone().sweep_always(clock), quota.recount_always(), instances, pool);
            until(stop, async move {
                tokio::join!(sweeps.0, sweeps.1, sweeps.2, sweeps.3, sweeps.4);
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

/// Shows how instances stand and forgets those that are gone, for as long as it is polled.
async fn look_after_instances(
    places: Arc<Places>,
    (slots, loads, metrics): (Arc<Instances>, Arc<Loads>, Arc<Metrics>),
    directory: Arc<Directory>,
) {
    loop {
        for _ in 0..FORGET {
            places.publish();
            tokio::time::sleep(LOOK).await;
        }
        slots.sweep();
        if let Some(routes) = directory.current() {
            places.keep(&routes);
            loads.keep(|chute| routes.by_id(chute).is_some());
            metrics.chutes.keep(|chute| routes.by_id(chute).is_some());
        }
    }
}

fn socket_options() -> TcpSocketOptions {
    let mut options = TcpSocketOptions::default();
    options.tcp_keepalive = Some(DEAD_PEERS);
    options
}

fn places(config: &Config, slots: &Arc<Instances>, loads: &Arc<Loads>, metrics: &Arc<Metrics>) -> Places {
    let rule = Rule { open: config.instances.breaker, longest: config.instances.breaker_longest };
    Places::new(rule, config.instances.retry_floor, slots.clone(), loads.clone(), metrics.clone())
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

fn answer_settings(config: &Config) -> idempotent::Settings {
    idempotent::Settings {
        keep: config.calls.idempotent,
        largest: config.calls.idempotent_answer,
        total: config.calls.idempotent_answers,
        run_on: config.calls.idempotent_run_on,
        claim: config.calls.idempotent_claim,
    }
}

fn bounds(config: &Config) -> Bounds {
    let instances = &config.instances;
    Bounds { keep: instances.instance_keep, each: instances.instance_kept_each, all: instances.instance_kept }
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
