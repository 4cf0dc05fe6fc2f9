//! The ledger: what a transaction stores by the production decision, with the invariants that hold after each.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use chrono::{DateTime, TimeDelta, Utc};

use super::Bug;
use super::chance::Weather;
use super::desk::Funds;
use crate::ids::WriterId;
use crate::record::batch::{AttemptKey, Batch};
use crate::record::hours;
use crate::record::ingest::Marks;
use crate::record::ledger::{self, LogWriter};
use crate::usage::Record;

/// One attempt as it is stored.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) record: Record,
    hash: [u8; 32],
    hour: DateTime<Utc>,
    /// How often it was charged.
    charged: u32,
}

/// The stand-in.
#[derive(Debug)]
pub(crate) struct Postgres {
    pub(crate) rows: BTreeMap<AttemptKey, Row>,
    pub(crate) writers: BTreeMap<WriterId, LogWriter>,
    /// What was dealt with, by the sequences' own book: the end of each range by its beginning.
    dealt: BTreeMap<WriterId, BTreeMap<u64, u64>>,
    /// Writers of whose logs something is known to be damaged.
    pub(crate) damaged: BTreeSet<WriterId>,
    pub(crate) contradicted: u64,
    open: Option<DateTime<Utc>>,
    /// Rows of the hours that are closed.
    closed: BTreeMap<DateTime<Utc>, u64>,
    pub(crate) away: bool,
    weather: Rc<Weather>,
    bug: Option<Bug>,
}

/// The database is away; whether the transaction was committed is not known.
#[derive(Debug)]
pub(crate) struct Away;

impl Postgres {
    pub(crate) fn new(weather: Rc<Weather>, bug: Option<Bug>) -> Self {
        Self {
            rows: BTreeMap::new(),
            writers: BTreeMap::new(),
            dealt: BTreeMap::new(),
            damaged: BTreeSet::new(),
            contradicted: 0,
            open: None,
            closed: BTreeMap::new(),
            away: false,
            weather,
            bug,
        }
    }

    pub(crate) fn marks(&self) -> Result<Marks, Away> {
        if self.away {
            return Err(Away);
        }
        Ok(self.writers.iter().map(|(writer, known)| (*writer, known.mark)).collect())
    }

    /// What it has counted of the allowance.
    pub(crate) fn funds(&self) -> Result<Funds, Away> {
        let marks = self.marks()?;
        Ok(Funds { used: self.rows.values().filter(|row| row.record.delivered).count() as u64, marks })
    }

    /// Stores a batch in one transaction and gives the marks of its writers.
    pub(crate) fn store(&mut self, batch: &Batch, now: DateTime<Utc>) -> Result<Result<Marks, String>, Away> {
        if self.away || self.weather.strikes("postgres: lost before commit") {
            return Err(Away);
        }
        let stored = self.decide(batch, now);
        if self.weather.strikes("postgres: lost after commit") { Err(Away) } else { Ok(stored) }
    }

    fn decide(&mut self, batch: &Batch, now: DateTime<Utc>) -> Result<Marks, String> {
        let earliest = batch.earliest().unwrap_or(now);
        let open = *self.open.get_or_insert_with(|| hours::end_of(earliest.clamp(now - TimeDelta::hours(24), now)));
        let mut known: BTreeMap<WriterId, LogWriter> = BTreeMap::new();
        for writer in batch.sequences().into_keys() {
            let held = self.writers.get(&writer).copied();
            known.insert(writer, held.unwrap_or_else(|| LogWriter::new(earliest.min(now))));
        }
        let held = |key: &AttemptKey| match self.bug {
            Some(Bug::ForgetsWhatItHolds) => None,
            _ => self.rows.get(key).map(|row| row.hash.as_slice()),
        };
        // At first only those are looked up that a mark says are stored; all, should the insert meet another.
        let first = batch.first_finals();
        let marked: BTreeSet<AttemptKey> =
            ledger::marked(&first.0, &known).iter().map(|entry| entry.attempt()).collect();
        let mut found = ledger::attempts(batch, first, |key| marked.contains(key).then(|| held(key)).flatten());
        if found.new.iter().any(|entry| self.rows.contains_key(&entry.attempt())) {
            found = ledger::attempts(batch, batch.first_finals(), held);
        }
        assert!(self.bug != Some(Bug::Panics) || found.repeated == 0, "a planted panic");
        self.contradicted += found.contradicted;
        for entry in found.new {
            let hour = match self.bug {
                Some(Bug::LateRowsIntoTheirHour) => hours::end_of(entry.record.completed_at),
                _ => hours::end_for_row(entry.record.completed_at, open, now),
            };
            if hour < open {
                return Err(format!("a row came into {hour}, which is closed"));
            }
            let row = Row { record: entry.record.clone(), hash: entry.hash, hour, charged: 0 };
            let row = self.rows.entry(entry.attempt()).or_insert(row);
            row.charged += 1;
            if row.charged > 1 {
                return Err(format!("{:?} was charged twice", entry.attempt()));
            }
        }
        self.damaged.extend(batch.rejects.iter().filter_map(|reject| reject.writer));
        ledger::advance(batch, &mut known);
        if self.bug == Some(Bug::MarkPassesGaps) {
            for (writer, ranges) in batch.sequences() {
                let highest = ranges.iter().map(|range| *range.end()).max().unwrap_or(0);
                known.entry(writer).and_modify(|held| held.mark = held.mark.max(highest));
            }
        }
        self.check_marks(batch, &known)?;
        let marks = known.iter().map(|(writer, held)| (*writer, held.mark)).collect();
        self.writers.extend(known);
        Ok(marks)
    }

    /// By another way than the production code's: a mark has everything below it.
    fn check_marks(&mut self, batch: &Batch, known: &BTreeMap<WriterId, LogWriter>) -> Result<(), String> {
        for (writer, ranges) in batch.sequences() {
            let dealt = self.dealt.entry(writer).or_default();
            for range in ranges {
                let end = dealt.entry(*range.start()).or_default();
                *end = (*end).max(*range.end());
            }
            let mark = known[&writer].mark;
            let mut reached = 0;
            for (from, through) in &*dealt {
                if *from > reached + 1 {
                    break;
                }
                reached = reached.max(*through);
            }
            if mark > reached {
                return Err(format!("the mark {mark} of {writer} passed a gap at {}", reached + 1));
            }
            // Keeps the book short.
            dealt.retain(|_, through| *through > reached);
            dealt.insert(0, reached);
        }
        Ok(())
    }

    /// Closes the hours that may close.
    pub(crate) fn close_hours(&mut self, now: DateTime<Utc>) {
        while let Some(end) = self.open {
            let writers = self.writers.values().filter(|known| !known.closed);
            let writers = writers.map(|known| hours::Writer { clock: known.clock, closed: known.closed });
            if self.away || !hours::may_close(end, now, writers) {
                return;
            }
            self.closed.insert(end, self.rows_of(end));
            self.open = Some(end + TimeDelta::hours(1));
        }
    }

    pub(crate) fn closed_hours(&self) -> usize {
        self.closed.len()
    }

    /// Each row is in one hour, and what is closed has not changed.
    pub(crate) fn check_hours(&self) -> Result<(), String> {
        match self.closed.iter().find(|(end, rows)| self.rows_of(**end) != **rows) {
            Some((end, rows)) => Err(format!("the hour {end} had {rows} rows when it closed")),
            None => Ok(()),
        }
    }

    fn rows_of(&self, hour: DateTime<Utc>) -> u64 {
        self.rows.values().filter(|row| row.hour == hour).count() as u64
    }
}
