//! Says whether there is room for one more connection, request or call.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::holdings::{Full, Held, Holdings};
use super::lag::Lag;
use super::memory::{Memory, Room};
use crate::metrics::{Metrics, Refused};
use crate::refusal::{Refusal, Scarce};

/// What is asked before anything is known of a client.
pub struct Admission {
    connections: Arc<Holdings>,
    forwarded: Arc<Holdings>,
    memory: Arc<Memory>,
    lag: Lag,
    metrics: Arc<Metrics>,
}

impl Admission {
    /// Room for these connections and forwarded requests, in this memory, and for calls while ready work waits no longer
    /// than `max_lag`.
    #[must_use]
    pub fn new(
        max_lag: Duration,
        connections: Arc<Holdings>,
        forwarded: Arc<Holdings>,
        memory: Arc<Memory>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(Self { connections, forwarded, memory, lag: Lag::new(max_lag), metrics })
    }

    /// Room for a connection, held until the result is dropped.
    pub(super) fn connection(&self, peer: Option<IpAddr>) -> Result<Held, Refused> {
        let held = match self.memory.room() {
            Room::Calls | Room::Connections => self.connections.take(peer).map_err(|full| match full {
                Full::All => Refused::Connections,
                Full::Address => Refused::ConnectionsOfAddress,
            }),
            Room::None => Err(Refused::ConnectionMemory),
        };
        if let Err(reason) = held {
            self.metrics.edge.refused(reason).inc();
        }
        held
    }

    /// Room for a request that goes on to a service, held until the result is dropped.
    ///
    /// # Errors
    /// When this client, or all together, have as many there as they may.
    pub fn forward(&self, client: Option<IpAddr>) -> Result<Held, Refusal> {
        self.forwarded.take(client).map_err(|full| {
            let reason = match full {
                Full::All => Refused::Forwarded,
                Full::Address => Refused::ForwardedOfAddress,
            };
            self.metrics.edge.refused(reason).inc();
            Refusal::Overloaded(Scarce::Requests)
        })
    }

    /// Asks for room for a call.
    ///
    /// # Errors
    /// When there is none, for lack of memory or of processor time.
    pub async fn call(&self) -> Result<(), Refusal> {
        if let Some(waited) = self.lag.look().await {
            self.metrics.edge.lag.set(waited.as_secs_f64());
        }
        let (reason, scarce) = match self.memory.room() {
            Room::Connections | Room::None => (Refused::CallMemory, Scarce::Memory),
            Room::Calls if !self.lag.lets_in(rand::random()) => (Refused::CallLag, Scarce::Processor),
            Room::Calls => return Ok(()),
        };
        self.metrics.edge.refused(reason).inc();
        Err(Refusal::Overloaded(scarce))
    }
}
