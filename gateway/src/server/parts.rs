//! The parts of the program, made from its settings.

use std::sync::Arc;

use anyhow::Context;
use pingora::listeners::{Listeners, TcpSocketOptions};
use protocol::sealing::DirectoryKey;
use protocol::session::SessionVerifier;
use protocol::signing::Keypair;

use crate::auth::Auth;
use crate::balance::Rule;
use crate::call::intake::Intake;
use crate::call::place::Places;
use crate::call::upstream::{Bounds, Network, Pool};
use crate::call::{Calls, Patience};
use crate::clock::Clock;
use crate::config::Config;
use crate::directory::Directory;
use crate::edge::BeforeTls;
use crate::edge::admission::Admission;
use crate::edge::holdings::{self, Holdings};
use crate::edge::memory::Memory;
use crate::forward::{DEAD_PEERS, Services};
use crate::host::Hosts;
use crate::idempotent::{self, Answers};
use crate::internal::Internal;
use crate::lease::{Desk, Instances, Leases, Loads};
use crate::lifecycle::{self, Lifecycle};
use crate::limit::{Caps, Limits, Quota};
use crate::metrics::Metrics;
use crate::principals::Principals;
use crate::proxy::Proxy;
use crate::reroll::Rerolls;
use crate::strikes::{self, Reporter, Strikes};
use crate::tls::Certificates;
use crate::upgrade::Upgrade;
use crate::usage::{self, UsageLog};

/// The parts that run as long as the program does.
pub(super) struct Parts {
    pub(super) clock: Clock,
    pub(super) metrics: Arc<Metrics>,
    pub(super) lifecycle: Arc<Lifecycle>,
    pub(super) directory: Arc<Directory>,
    pub(super) principals: Arc<Principals>,
    pub(super) answers: Arc<Answers>,
    pub(super) limits: Arc<Limits>,
    pub(super) quota: Arc<Quota>,
    pub(super) desk: Arc<Desk>,
    pub(super) loads: Arc<Loads>,
    pub(super) slots: Arc<Instances>,
    pub(super) places: Arc<Places>,
    pub(super) certificates: Arc<Certificates>,
    pub(super) memory: Arc<Memory>,
    pub(super) admission: Arc<Admission>,
    pub(super) log: UsageLog,
    pub(super) strikes: Strikes,
    pub(super) reporter: Arc<Reporter>,
    pub(super) upgrade: Arc<Upgrade>,
    pub(super) pool: Arc<Pool>,
}

impl Parts {
    pub(super) fn new(config: &Config) -> anyhow::Result<Self> {
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
        let default = Caps { per_minute: config.limits.rate_per_minute, at_once: config.limits.max_concurrent };
        let limits = Arc::new(Limits::new(default, leases.clone()));
        let quota = Arc::new(Quota::new(principals.clone(), leases.clone(), log.writer()));
        let (slots, loads) = (Arc::new(Instances::new(leases.clone())), Arc::new(Loads::default()));
        let books = (limits.clone(), quota.clone(), slots.clone());
        let answers = answers(config, redis.clone(), &metrics)?;
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
            answers,
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

    pub(super) fn listeners(&self, config: &Config) -> anyhow::Result<Listeners> {
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

    pub(super) fn proxy(&self, config: &Config) -> anyhow::Result<Proxy> {
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
            answers: self.answers.clone(),
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

    pub(super) fn internal(&self, config: &Config) -> Internal {
        Internal::new(config.internal_credential.clone(), self.metrics.clone(), self.missing())
    }

    /// What is missing to serve calls, at the moment of asking.
    pub(super) fn missing(&self) -> impl Fn() -> Option<&'static str> + Clone + Send + Sync + 'static {
        let (directory, limits, metrics) = (self.directory.clone(), self.limits.clone(), self.metrics.clone());
        move || {
            if directory.current().is_none() {
                Some("the directory has not come yet")
            } else if metrics.redis.principals.get() == 0 {
                Some("principals are not followed")
            } else if !limits.are_known() {
                Some("leases were never taken from redis")
            } else if metrics.record.writable.get() == 0 {
                Some("the record log cannot be written")
            } else {
                None
            }
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
    let edge = &config.edge;
    let limits = |all, per_address| {
        let exempt = config.client.trusted_peers.clone();
        holdings::Limits { all, per_address, exempt }
    };
    let connections = limits(edge.max_connections, edge.max_connections_per_address);
    let forwarded = limits(edge.max_forwarded, edge.max_forwarded_per_address);
    let connections = Holdings::new(connections, metrics.edge.connections.clone());
    let forwarded = Holdings::new(forwarded, metrics.edge.forwarded.clone());
    Admission::new(edge.max_lag, connections, forwarded, memory.clone(), metrics.clone())
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

fn answers(config: &Config, redis: redis::Client, metrics: &Arc<Metrics>) -> anyhow::Result<Arc<Answers>> {
    let key = DirectoryKey::from_hex(config.directory_key.reveal()).context("reading the directory key")?;
    let settings = idempotent::Settings {
        keep: config.calls.idempotent,
        largest: config.calls.idempotent_answer,
        total: config.calls.idempotent_answers,
        run_on: config.calls.idempotent_run_on,
        claim: config.calls.idempotent_claim,
    };
    Ok(Arc::new(Answers::new(redis, key.answer_key(), metrics.clone(), settings)))
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
