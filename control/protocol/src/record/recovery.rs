//! What is to be added to the log of a writer that died: a `lost` final for each attempt without one.

use std::collections::{BTreeMap, HashMap};

use crate::ids::InvocationId;
use crate::record::frame::Entry;
use crate::record::settle;
use crate::record::slot::Slot;
use crate::usage::{Admission, Outcome, Record};

#[cfg(test)]
mod tests;

/// Reason of an attempt that was lost before anything reached the client.
pub const LOST: &str = "LOST";

/// How many sequences each life of a log has, less one.
const LIFE: u64 = u32::MAX as u64;

/// Reads a dead writer's log from the first entry to the last.
#[derive(Debug, Default)]
pub struct Recovery {
    open: HashMap<InvocationId, (u64, Box<Admission>)>,
    admitted: u64,
    last: u64,
}

impl Recovery {
    /// Takes in the next entry of the log.
    pub fn read(&mut self, entry: Entry) {
        match entry {
            Entry::Opened { after: last } | Entry::Skipped { through: last } => self.last = self.last.max(last),
            Entry::Admitted(admission) => {
                self.admitted += 1;
                self.open.insert(admission.invocation, (self.admitted, admission));
            }
            Entry::Final { sequence, record } => {
                self.last = self.last.max(sequence);
                self.open.remove(&record.admission.invocation);
            }
        }
    }

    /// A sequence that no final of this log ever had, whatever of the log is gone: all up to it are to be skipped.
    ///
    /// Finals that were shipped may be missing in the log of a machine that crashed. To give their sequences to other
    /// finals would make a mark speak of these before they are in Postgres.
    #[must_use]
    pub fn skip_through(&self) -> u64 {
        (self.last + 1) | LIFE
    }

    /// The finals to append, in the order of admission, with the sequences that follow [`Self::skip_through`].
    ///
    /// They end when their slot was last written, which may lie before a beat that the writer has sent; a closed
    /// hour takes them into the next one.
    #[must_use]
    pub fn lost(self, slots: impl IntoIterator<Item = Slot>) -> Vec<(u64, Record)> {
        let mut counted: HashMap<InvocationId, Slot> = HashMap::new();
        for slot in slots {
            if self.open.contains_key(&slot.invocation) {
                counted.insert(slot.invocation, slot);
            }
        }
        let first = self.skip_through() + 1;
        let open: BTreeMap<u64, Box<Admission>> = self.open.into_values().collect();
        (first..)
            .zip(open.into_values().map(|admission| {
                let slot = counted.get(&admission.invocation).copied();
                lost_record(*admission, slot)
            }))
            .collect()
    }
}

/// The final of an attempt whose writer died, by the counters in its slot if it has one.
#[must_use]
pub fn lost_record(admission: Admission, slot: Option<Slot>) -> Record {
    let completed_at = slot.map_or(admission.started_at, |slot| slot.updated_at).max(admission.started_at);
    let counters = slot.map(|slot| slot.counters).unwrap_or_default();
    let facts = settle::facts(admission.kind, admission.estimate, &counters, completed_at - admission.started_at);
    Record {
        outcome: Outcome::Lost,
        completed_at,
        error: (!counters.delivered).then(|| LOST.to_owned()),
        delivered: counters.delivered,
        facts,
        admission,
    }
}
