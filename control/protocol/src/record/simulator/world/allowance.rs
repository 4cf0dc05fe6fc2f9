//! The one allowance of a run: desks that beat, words of control, and that no call too many is let in.

use std::time::Duration;

use super::World;
use crate::ids::WriterId;
use crate::lease::allowance::LINGER;

/// Between two beats of a desk.
const BEAT: Duration = Duration::from_millis(250);
/// Between two beats of desks of which little is to be seen; Redis does not count as away meanwhile.
const DULL: Duration = Duration::from_millis(900);
/// The end of a long wait, in which desks beat, settle and hear of each other again.
const END: Duration = Duration::from_secs(45);

impl World {
    /// Lets every desk beat if it is time, or if Redis may have lost what they hold: then they notice at once.
    pub(super) fn beat(&mut self) {
        let late = self.owed.values().any(|heard| self.now.saturating_sub(*heard) >= LINGER);
        self.lapsed |= late || self.redis.unclaimed && !self.owed.is_empty();
        if self.redis.away || self.now.saturating_sub(self.beaten) < BEAT && !self.redis.unclaimed {
            return;
        }
        for gateway in &mut self.gateways {
            gateway.desk.beat(&mut self.redis, self.now);
        }
        (self.beaten, self.redis.unclaimed) = (self.now, false);
    }

    /// Lets time pass; in a very long wait desks are silent up to its end, to save steps.
    pub(super) fn wait(&mut self, long: Duration) {
        let end = self.now + long;
        self.now += long.saturating_sub(END);
        while self.now < end {
            self.now = end.min(self.now + DULL);
            self.beat();
        }
    }

    /// Control publishes what it has counted.
    pub(super) fn publish(&mut self) {
        let Ok(funds) = self.postgres.funds() else { return };
        if self.redis.publish_funds(funds) {
            // Logs that are still there may hold calls that are not counted.
            self.owed.retain(|writer, _| self.places.contains_key(writer));
        }
    }

    /// Calls in flight and delivered ones stay within the allowance; without those that a disk lost which broke its
    /// promise, since nobody counts them.
    pub(super) fn check_allowance(&self) -> Result<(), String> {
        if self.lapsed {
            return Ok(());
        }
        let in_flight = self.gateways.iter().map(|gateway| gateway.flights.len()).sum::<usize>();
        let flies = |key| self.gateways.iter().any(|gateway| gateway.flights.iter().any(|flight| flight.key == key));
        let delivered = self.truth.attempts.iter().filter(|(key, attempt)| match self.postgres.rows.get(key) {
            Some(row) => row.record.delivered,
            None => attempt.got > 0 && self.is_to_be_counted(attempt.writer) && !flies(**key),
        });
        let used = (in_flight + delivered.count()) as u64;
        if used <= self.quota { Ok(()) } else { Err(format!("{used} calls of an allowance of {}", self.quota)) }
    }

    fn is_to_be_counted(&self, writer: WriterId) -> bool {
        self.places.contains_key(&writer) && !self.truth.harmed.contains(&writer)
    }

    /// Control has counted every call of those that still run, and they know it.
    pub(super) fn check_settled(&mut self) -> Result<(), String> {
        self.publish();
        self.now += BEAT;
        self.beat();
        match self.gateways.iter().find(|gateway| gateway.desk.allowance.is_ahead()) {
            Some(ahead) => Err(format!("calls of {} are not settled: {:?}", ahead.writer, ahead.desk)),
            None => Ok(()),
        }
    }
}
