//! Every metric of the program, by subject.

mod calls;
mod connections;
mod edge;
mod instances;
mod limits;
mod record;
mod register;
mod upgrade;
mod who;

use prometheus::Registry;

pub use self::calls::{Calls, InFlight};
pub use self::connections::{Connections, Over};
pub use self::edge::{Edge, Refused};
pub use self::instances::Instances;
pub use self::limits::{Limit, Limits};
pub use self::record::Record;
use self::register::Register;
pub use self::upgrade::Upgrade;
pub use self::who::Who;

/// The metrics of one gateway process.
pub struct Metrics {
    /// Where they are registered.
    pub registry: Registry,
    /// Calls and their attempts.
    pub calls: Calls,
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
    /// The change from one process to the next.
    pub upgrade: Upgrade,
}

impl Metrics {
    /// Registers every metric.
    ///
    /// # Errors
    /// When two metrics have one name.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let register = Register(&registry);
        let (calls, connections, edge) = (Calls::new(register)?, Connections::new(register)?, Edge::new(register)?);
        let (instances, who, limits) = (Instances::new(register)?, Who::new(register)?, Limits::new(register)?);
        let (record, upgrade) = (Record::new(register)?, Upgrade::new(register)?);
        Ok(Self { registry, calls, connections, edge, instances, who, limits, record, upgrade })
    }
}
