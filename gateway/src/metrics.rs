//! Every metric of the program, by subject.

mod calls;
mod edge;
mod record;
mod register;
mod who;

use prometheus::Registry;

pub use self::calls::{Calls, InFlight};
pub use self::edge::{Edge, Refused};
pub use self::record::Record;
use self::register::Register;
pub use self::who::Who;

/// The metrics of one gateway process.
pub struct Metrics {
    /// Where they are registered.
    pub registry: Registry,
    /// Calls and their attempts.
    pub calls: Calls,
    /// The edge itself: connections, memory, processor.
    pub edge: Edge,
    /// What the edge knows: chutes and principals.
    pub who: Who,
    /// The record of calls.
    pub record: Record,
}

impl Metrics {
    /// Registers every metric.
    ///
    /// # Errors
    /// When two metrics have one name.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let register = Register(&registry);
        let (calls, edge) = (Calls::new(register)?, Edge::new(register)?);
        let (who, record) = (Who::new(register)?, Record::new(register)?);
        Ok(Self { registry, calls, edge, who, record })
    }
}
