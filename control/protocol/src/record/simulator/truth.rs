//! What really happened to each attempt, and what the ledger may say of it.

use std::collections::{BTreeMap, BTreeSet};

use super::postgres::Postgres;
use crate::ids::WriterId;
use crate::record::batch::AttemptKey;
use crate::usage::{Outcome, Record};

/// What really happened to an attempt.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(crate) writer: WriterId,
    /// Whether the gateway was told that it is written down; else the call was refused, or the process killed.
    pub(crate) admitted: bool,
    /// Chunks that the client has.
    pub(crate) got: u64,
    /// The final, once the gateway was told that it is written down.
    pub(crate) told: Option<Record>,
    pub(crate) admitted_durably: bool,
    pub(crate) told_durably: bool,
    /// Whether a crash of the machine, or of a process whose disk refused, took it before it was durable.
    may_vanish: bool,
    may_be_lost: bool,
    /// Whether the machine crashed, and with it the counters.
    crashed: bool,
}

/// All attempts.
#[derive(Debug, Default)]
pub(crate) struct Truth {
    pub(crate) attempts: BTreeMap<AttemptKey, Attempt>,
    /// Writers in whose logs the disk broke its promise.
    pub(crate) harmed: BTreeSet<WriterId>,
}

impl Truth {
    pub(crate) fn began(&mut self, key: AttemptKey, writer: WriterId, admitted: bool) {
        let attempt = Attempt {
            writer,
            admitted,
            got: 0,
            told: None,
            admitted_durably: false,
            told_durably: false,
            may_vanish: false,
            may_be_lost: false,
            crashed: false,
        };
        self.attempts.insert(key, attempt);
    }

    pub(crate) fn attempt(&mut self, key: &AttemptKey) -> &mut Attempt {
        self.attempts.get_mut(key).expect("an attempt that began")
    }

    /// These are on disk for good; true for finals.
    pub(crate) fn durable(&mut self, keys: impl IntoIterator<Item = (AttemptKey, bool)>) {
        for (key, last) in keys {
            let attempt = self.attempt(&key);
            attempt.admitted_durably = true;
            attempt.told_durably |= last;
        }
    }

    /// Everything of a writer that is in its log is on disk for good.
    pub(crate) fn all_durable(&mut self, writer: WriterId) {
        for attempt in self.attempts.values_mut().filter(|attempt| attempt.writer == writer) {
            attempt.admitted_durably = true;
            attempt.told_durably = true;
        }
    }

    /// A process died while its disk had refused these.
    pub(crate) fn refused(&mut self, keys: impl IntoIterator<Item = (AttemptKey, bool)>, admissions_too: bool) {
        for (key, _) in keys {
            let attempt = self.attempt(&key);
            attempt.may_be_lost = true;
            attempt.may_vanish |= admissions_too;
        }
    }

    /// The page cache of the machine is gone, or of one writer's log.
    pub(crate) fn crashed(&mut self, of: Option<WriterId>) {
        for attempt in self.attempts.values_mut().filter(|attempt| of.is_none_or(|writer| attempt.writer == writer)) {
            attempt.may_vanish |= !attempt.admitted_durably;
            attempt.may_be_lost |= !attempt.told_durably;
            attempt.crashed = true;
        }
    }

    /// Whether the ledger tells the truth about every attempt that has ended.
    pub(crate) fn check(&self, postgres: &Postgres) -> Result<(), String> {
        if let Some(key) = postgres.rows.keys().find(|key| !self.attempts.contains_key(*key)) {
            return Err(format!("there is a row of {key:?}, which never was"));
        }
        for (key, attempt) in &self.attempts {
            let row = postgres.rows.get(key).map(|row| &row.record);
            self.check_attempt(attempt, row, postgres)
                .map_err(|wrong| format!("{wrong}: {key:?} {attempt:?} {row:?}"))?;
        }
        if postgres.contradicted > 0 && self.harmed.is_empty() && !self.attempts.values().any(|one| one.may_be_lost) {
            return Err(format!("{} finals were contradicted", postgres.contradicted));
        }
        postgres.check_hours()
    }

    fn check_attempt(&self, attempt: &Attempt, row: Option<&Record>, postgres: &Postgres) -> Result<(), &'static str> {
        let harmed = self.harmed.contains(&attempt.writer);
        let Some(row) = row else {
            let detected = postgres.damaged.contains(&attempt.writer) || attempt.crashed;
            let excused = !attempt.admitted || attempt.may_vanish || harmed && detected;
            return if excused { Ok(()) } else { Err("an attempt is missing") };
        };
        // Within one write of what the client has.
        let near = (attempt.got..=attempt.got + 1).contains(&row.facts.ot);
        match (&attempt.told, row.outcome) {
            (None, Outcome::Lost) if !attempt.crashed && !harmed && attempt.admitted && !attempt.may_be_lost => {
                if near { Ok(()) } else { Err("a lost attempt is counted wrongly") }
            }
            (None, Outcome::Lost) | (Some(_), Outcome::Lost)
                if attempt.told.is_none() || attempt.may_be_lost || harmed =>
            {
                Ok(())
            }
            (Some(_), Outcome::Lost) => Err("an attempt that had ended was lost"),
            (Some(told), _) if told == row => Ok(()),
            (Some(_), _) => Err("a row says something else than the gateway"),
            (None, _) if !attempt.admitted => Err("a refused attempt has a final"),
            // The process was killed while it wrote the final.
            (None, _) if near || attempt.crashed || harmed => Ok(()),
            (None, _) => Err("an attempt whose end nobody was told of is counted wrongly"),
        }
    }
}
