//! Every metric of the program, by subject.

mod attempts;
mod calls;
mod chutes;
mod connections;
mod edge;
mod instances;
mod limits;
mod record;
mod redis;
mod register;
mod requests;
mod tls;
mod upgrade;
mod who;

use prometheus::{IntGauge, Registry};
use protocol::ids::ChuteId;

pub use self::attempts::Attempts;
pub use self::calls::{Calls, InFlight};
pub use self::chutes::{Chute, Chutes, MOST};
pub use self::connections::{Connections, Over};
pub use self::edge::{Edge, Refused};
pub use self::instances::Instances;
pub use self::limits::{Limit, Limits};
pub use self::record::Record;
pub use self::redis::Redis;
use self::register::Register;
pub use self::requests::{Host, Requests};
pub use self::tls::Tls;
pub use self::upgrade::Upgrade;
pub use self::who::{MISSING, Who};

/// The metrics that name a chute, and no others: each has at most [`MOST`] series.
pub const PER_CHUTE: [&str; 5] = [
    "chutes_gateway_chute_attempts_in_flight",
    "chutes_gateway_chute_attempts_total",
    "chutes_gateway_chute_failures_total",
    "chutes_gateway_chute_prompt_tokens_total",
    "chutes_gateway_chute_completion_tokens_total",
];

/// The metrics of one gateway process.
pub struct Metrics {
    /// Where they are registered.
    pub registry: Registry,
    /// Requests and answers.
    pub requests: Requests,
    /// Calls and how long they take.
    pub calls: Calls,
    /// Attempts on instances.
    pub attempts: Attempts,
    /// What is counted by chute.
    pub chutes: Chutes,
    /// Connections to instances.
    pub connections: Connections,
    /// The edge itself: connections, memory, processor.
    pub edge: Edge,
    /// Instances and repeated attempts.
    pub instances: Instances,
    /// What the edge knows: chutes and principals.
    pub who: Who,
    /// Limits that gateways share.
    pub limits: Limits,
    /// The record of calls.
    pub record: Record,
    /// Connections to Redis.
    pub redis: Redis,
    /// TLS.
    pub tls: Tls,
    /// The change from one process to the next.
    pub upgrade: Upgrade,
}

/// An attempt in flight; it counts as one until dropped.
pub struct Underway([IntGauge; 2]);

impl Drop for Underway {
    fn drop(&mut self) {
        self.0.iter().for_each(IntGauge::dec);
    }
}

impl Metrics {
    /// Registers every metric.
    ///
    /// # Errors
    /// When two metrics have one name.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let register = Register(&registry);
        Ok(Self {
            requests: Requests::new(register)?,
            calls: Calls::new(register)?,
            attempts: Attempts::new(register)?,
            chutes: Chutes::new(register)?,
            connections: Connections::new(register)?,
            edge: Edge::new(register)?,
            instances: Instances::new(register)?,
            limits: Limits::new(register)?,
            who: Who::new(register)?,
            record: Record::new(register)?,
            redis: Redis::new(register)?,
            tls: Tls::new(register)?,
            upgrade: Upgrade::new(register)?,
            registry,
        })
    }

    /// Counts an attempt as in flight for as long as the result lives.
    pub fn begin(&self, chute: ChuteId) -> Underway {
        let gauges = [self.attempts.in_flight.clone(), self.chutes.of(chute).in_flight.clone()];
        gauges.iter().for_each(IntGauge::inc);
        Underway(gauges)
    }

    /// Counts an attempt whose record is written.
    pub fn count_record(&self, record: &protocol::usage::Record) {
        self.attempts.count(record);
        self.chutes.of(record.admission.chute).count(record);
    }
}
