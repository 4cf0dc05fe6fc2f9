//! One attempt under way: its slot in the log, its record, and what it does to the caller's allowance.

use std::time::{Duration, Instant};

use protocol::record::settle::{self, Counters};
use protocol::usage::{Admission, Kind, Outcome};

use crate::limit::QuotaHold;
use crate::usage::meter::Meter;
use crate::usage::{ABORTED, Flight, LogUnwritable, UsageLog};

/// An attempt that was admitted and has no end yet.
pub(super) struct Running {
    flight: Flight,
    quota: Option<QuotaHold>,
    counters: Counters,
    /// Those before the last piece.
    before: Counters,
    /// Those with the pieces that came after the client had left: they count only if the whole answer is kept for it.
    kept: Option<Counters>,
    kind: Kind,
    estimate: u64,
}

impl Running {
    /// Writes down that an attempt begins; it takes the allowance only if that can be written.
    ///
    /// # Errors
    /// When it cannot be recorded: then it must not be sent.
    pub(super) fn begin(
        log: &UsageLog,
        admission: Admission,
        quota: &mut Option<QuotaHold>,
    ) -> Result<Self, LogUnwritable> {
        let (kind, estimate) = (admission.kind, admission.estimate);
        Ok(Self {
            flight: log.admit(admission)?,
            quota: quota.take(),
            counters: Counters::default(),
            before: Counters::default(),
            kept: None,
            kind,
            estimate,
        })
    }

    /// When it began, by the clock that only goes forward.
    pub(super) fn started(&self) -> Instant {
        self.flight.started()
    }

    /// The client is about to get a piece: the slot has to know before. One that `has_left` gets none.
    pub(super) fn delivers(&mut self, meter: &Meter, has_left: bool) {
        let counted = meter.counters();
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let counters = Counters {
            chunks: counted.chunks,
            bytes: counted.bytes,
            prompt: counted.claimed.map(|claim| claim.prompt),
            completion: counted.claimed.map(|claim| claim.completion),
            first_chunk_micros: counted.first.map(micros),
            delivered: true,
        };
        if has_left {
            self.kept = Some(counters);
            return;
        }
        self.before = self.counters;
        self.counters = counters;
        self.flight.progress(counters);
    }

    /// Whether the client has something of the answer, as far as the record knows.
    pub(super) fn has_delivered(&self) -> bool {
        self.counters.delivered
    }

    /// The last piece has not reached the client: the record does not count it.
    pub(super) fn takes_back(&mut self) {
        self.counters = self.before;
    }

    /// Writes the record; gives the allowance back if the attempt used none of it.
    pub(super) fn finish(mut self, outcome: Outcome, error: Option<&str>) -> Option<QuotaHold> {
        let took = self.flight.took();
        if let (Outcome::Finished, Some(kept)) = (outcome, self.kept) {
            self.counters = kept;
        }
        let delivered = self.counters.delivered;
        let facts = settle::facts(self.kind, self.estimate, &self.counters, took);
        let error = error.or((outcome == Outcome::Aborted && !delivered).then_some(ABORTED));
        let sequence = self.flight.finish(outcome, took, error, facts, delivered);
        // The same rule by which control counts: a call that failed costs none of the allowance.
        if !delivered || outcome == Outcome::Failed {
            return self.quota;
        }
        if let (Some(quota), Some(sequence)) = (self.quota, sequence) {
            quota.counted(sequence);
        }
        None
    }
}
