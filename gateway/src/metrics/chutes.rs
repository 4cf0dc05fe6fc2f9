//! Metrics that name a chute, bounded however many chutes there are.
//!
//! The first chutes that are called get a label of their own, all later ones share one; a chute that leaves the
//! directory makes room for the next. "The busiest" would be a moving set, and counters that change hands say nothing.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use ahash::RandomState;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};
use protocol::ids::ChuteId;
use protocol::usage::{Outcome, Record};

use super::PER_CHUTE;
use super::register::Register;

/// Series of one metric at most, that of all others among them.
pub const MOST: usize = 500;

/// The label of chutes that have none of their own.
const OTHER: &str = "other";

/// The metrics that name a chute.
pub struct Chutes {
    families: Families,
    other: Arc<Chute>,
    named: RwLock<HashMap<ChuteId, Arc<Chute>, RandomState>>,
}

/// The metrics of one chute, or of all that share the last label.
pub struct Chute {
    pub(super) in_flight: IntGauge,
    attempts: IntCounter,
    failures: IntCounter,
    prompt_tokens: IntCounter,
    completion_tokens: IntCounter,
}

struct Families {
    in_flight: IntGaugeVec,
    attempts: IntCounterVec,
    failures: IntCounterVec,
    prompt_tokens: IntCounterVec,
    completion_tokens: IntCounterVec,
}

impl Chutes {
    pub(super) fn new(register: Register<'_>) -> prometheus::Result<Self> {
        let [in_flight, attempts, failures, prompt_tokens, completion_tokens] = PER_CHUTE;
        let label = &["chute"];
        let families = Families {
            in_flight: register.gauges(in_flight, "attempts that have no end yet, by chute", label)?,
            attempts: register.counters(attempts, "attempts that ended, by chute", label)?,
            failures: register.counters(failures, "attempts that failed or were lost, by chute", label)?,
            prompt_tokens: register.counters(prompt_tokens, "prompt tokens by chute", label)?,
            completion_tokens: register.counters(completion_tokens, "completion tokens by chute", label)?,
        };
        let other = Arc::new(families.child(OTHER));
        Ok(Self { families, other, named: RwLock::default() })
    }

    /// The metrics of a chute.
    pub fn of(&self, chute: ChuteId) -> Arc<Chute> {
        {
            let named = self.named.read().unwrap_or_else(PoisonError::into_inner);
            match named.get(&chute) {
                Some(known) => return Arc::clone(known),
                None if named.len() + 1 >= MOST => return Arc::clone(&self.other),
                None => {}
            }
        }
        let mut named = self.named.write().unwrap_or_else(PoisonError::into_inner);
        if named.len() + 1 >= MOST && !named.contains_key(&chute) {
            return Arc::clone(&self.other);
        }
        let child = || Arc::new(self.families.child(&chute.to_string()));
        Arc::clone(named.entry(chute).or_insert_with(child))
    }

    /// Forgets the chutes that are gone. Attempts still in flight there end unseen.
    pub fn keep(&self, is_there: impl Fn(ChuteId) -> bool) {
        let mut named = self.named.write().unwrap_or_else(PoisonError::into_inner);
        named.retain(|chute, _| is_there(*chute) || !self.families.remove(&chute.to_string()));
    }
}

impl Chute {
    /// Counts an attempt whose record is written.
    pub(super) fn count(&self, record: &Record) {
        self.attempts.inc();
        match record.outcome {
            Outcome::Failed | Outcome::Lost => self.failures.inc(),
            Outcome::Finished | Outcome::Aborted => {}
        }
        self.prompt_tokens.inc_by(record.facts.it);
        self.completion_tokens.inc_by(record.facts.ot);
    }
}

impl Families {
    fn child(&self, label: &str) -> Chute {
        Chute {
            in_flight: self.in_flight.with_label_values(&[label]),
            attempts: self.attempts.with_label_values(&[label]),
            failures: self.failures.with_label_values(&[label]),
            prompt_tokens: self.prompt_tokens.with_label_values(&[label]),
            completion_tokens: self.completion_tokens.with_label_values(&[label]),
        }
    }

    /// Removes a chute's series; whether all were there.
    fn remove(&self, label: &str) -> bool {
        let removed = [
            self.in_flight.remove_label_values(&[label]),
            self.attempts.remove_label_values(&[label]),
            self.failures.remove_label_values(&[label]),
            self.prompt_tokens.remove_label_values(&[label]),
            self.completion_tokens.remove_label_values(&[label]),
        ];
        removed.iter().all(Result::is_ok)
    }
}

#[cfg(test)]
mod tests;
