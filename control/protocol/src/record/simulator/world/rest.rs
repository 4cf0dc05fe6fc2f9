//! How everything comes to rest once nothing goes wrong any more.

use std::time::Duration;

use super::World;
use crate::record::simulator::ingester::Ingester;
use crate::record::simulator::options::Kind;

/// Rounds within which everything comes to rest; one is two seconds.
const ROUNDS: u64 = 1500;

impl World {
    /// Faults stop; within a bounded number of rounds everything is in Postgres and nothing is left of dead logs.
    pub(super) fn come_to_rest(&mut self) -> Result<(), String> {
        self.weather.calm.set(true);
        (self.redis.away, self.postgres.away) = (false, false);
        self.gateways.iter().for_each(|gateway| gateway.process.killed_in.set(None));
        while self.redis.deliver_late() {}
        while self.gateways.len() > 1 {
            self.gateways[0].process.alive.set(false);
            self.after()?;
        }
        if self.gateways.is_empty() || self.gateways[0].log.close() {
            self.gateways.iter().for_each(|gateway| gateway.process.alive.set(false));
            self.after()?;
            self.start();
        }
        self.ingesters.resize_with(1, Ingester::default);
        for _ in 0..ROUNDS {
            if self.round()? {
                return Ok(());
            }
        }
        let waiting: Vec<_> = self.places.keys().collect();
        let unconfirmed: Vec<u64> = self.gateways.iter().map(|one| one.shipper.unconfirmed()).collect();
        Err(format!("after {ROUNDS} rounds of calm {unconfirmed:?} records are unconfirmed, logs {waiting:?}"))
    }

    /// One round of everybody; true if everything rests.
    fn round(&mut self) -> Result<bool, String> {
        self.now += Duration::from_secs(2);
        for kind in [Kind::Finish, Kind::Refill, Kind::BeginSync, Kind::EndSync, Kind::Adopt] {
            self.step(kind)?;
        }
        for _ in 0..8 {
            self.step(Kind::Ship)?;
            self.step(Kind::Ingest)?;
        }
        self.step(Kind::Export)?;
        let gateway = &self.gateways[0];
        let own = gateway.flights.is_empty() && gateway.shipper.unconfirmed() == 0 && !gateway.log.is_dirty();
        Ok(own && self.places.len() == 1)
    }
}
