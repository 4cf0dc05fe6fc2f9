//! One attempt under way: its slot in the log, its record, and what it does to the caller's allowance.

use std::sync::Arc;
use std::time::Instant;

use protocol::record::settle::Counters;
use protocol::usage::Outcome;

use crate::clock::Clock;
use crate::limit::QuotaHold;
use crate::metrics::Metrics;
use crate::usage::log::Flight;
use crate::usage::meter::Meter;

/// An attempt that was admitted and has no end yet.
pub struct Running {
    flight: Flight,
    quota: Option<QuotaHold>,
    counters: Counters,
    clock: Clock,
    metrics: Arc<Metrics>,
    started: Instant,
}

impl Running {
    /// An attempt that counts against this allowance if the client gets anything of it.
    pub fn new(
        flight: Flight,
        quota: Option<QuotaHold>,
        clock: Clock,
        metrics: Arc<Metrics>,
        started: Instant,
    ) -> Self {
        Self { flight, quota, counters: Counters::default(), clock, metrics, started }
    }

    /// When it began, by the clock that only goes forward.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// The client is about to get a piece: the slot has to know before.
    pub fn delivers(&mut self, meter: &Meter) {
        self.counters = Counters { delivered: true, ..meter.counters() };
        self.flight.progress(self.counters);
    }

    /// Writes the record; gives the allowance back if the attempt used none of it.
    pub fn finish(self, outcome: Outcome, error: Option<&str>) -> Option<QuotaHold> {
        self.metrics.count_attempt(outcome);
        let sequence = self.flight.finish(outcome, self.clock.now(), error, self.counters);
        if !self.counters.delivered {
            return self.quota;
        }
        if let (Some(quota), Some(sequence)) = (self.quota, sequence) {
            quota.counted(sequence);
        }
        None
    }
}
