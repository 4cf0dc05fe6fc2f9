//! A Redis that loses connections, commands, replies and everything.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::chance::Weather;
use super::desk::Funds;
use crate::ids::WriterId;
use crate::lease::claims::{Claims, Heard};
use crate::lease::{Answer, Ask};
use crate::record::batch::RawEntry;
use crate::record::ingest::Wanted;
use crate::usage::{Entry, Written};

/// The fields of an entry.
type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// The connection is gone; whether the command was carried out is not known.
#[derive(Debug)]
pub(crate) struct Lost;

/// What a Redis holds.
#[derive(Clone, Debug, Default)]
struct Data {
    stream: BTreeMap<u64, Fields>,
    group: Option<u64>,
    pending: BTreeSet<u64>,
    marks: BTreeMap<WriterId, u64>,
    claims: Claims<()>,
    funds: Option<Funds>,
}

/// The stand-in.
#[derive(Debug)]
pub(crate) struct Redis {
    data: Data,
    saved: Data,
    next: u64,
    pub(crate) run: u64,
    pub(crate) away: bool,
    /// Whether something was lost that gateways have not claimed again.
    pub(crate) unclaimed: bool,
    /// What the network still holds of connections that were lost.
    late: Vec<Fields>,
    weather: Rc<Weather>,
}

impl Redis {
    pub(crate) fn new(weather: Rc<Weather>) -> Self {
        let (data, saved, late) = (Data::default(), Data::default(), Vec::new());
        Self { data, saved, next: 1, run: 1, away: false, unclaimed: false, late, weather }
    }

    pub(crate) fn connect(&self) -> Result<u64, Lost> {
        if self.away || self.weather.strikes("redis: connection refused") { Err(Lost) } else { Ok(self.run) }
    }

    /// Adds entries over a connection to this run, as one pipeline.
    pub(crate) fn add(&mut self, run: u64, entries: &[Entry<Written>]) -> Result<(), Lost> {
        self.arrives(run)?;
        let raw: Vec<_> = entries.iter().map(raw).collect();
        if !raw.is_empty() && self.weather.strikes("redis: pipeline cut") {
            let cut = self.weather.below(raw.len());
            if self.weather.strikes("redis: rest of a pipeline late") {
                self.late.extend(raw[cut..].iter().cloned());
            }
            raw[..cut].iter().for_each(|entry| self.append(entry.clone()));
            return Err(Lost);
        }
        raw.into_iter().for_each(|entry| self.append(entry));
        self.answers(())
    }

    /// Something that the network has held back arrives.
    pub(crate) fn deliver_late(&mut self) -> bool {
        if self.late.is_empty() || self.away {
            return false;
        }
        let entry = self.late.remove(self.weather.below(self.late.len()));
        self.append(entry);
        true
    }

    pub(crate) fn marks(&self, run: u64, writers: &[WriterId]) -> Result<(Vec<Option<u64>>, usize), Lost> {
        self.arrives(run)?;
        let marks = writers.iter().map(|writer| self.data.marks.get(writer).copied()).collect();
        self.answers((marks, self.data.stream.len()))
    }

    pub(crate) fn publish(&mut self, marks: &[(WriterId, u64)], all: bool) -> Result<(), Lost> {
        self.arrives(self.run)?;
        if all {
            self.data.marks.clear();
        }
        self.data.marks.extend(marks.iter().copied());
        self.answers(())
    }

    /// The next entries for the group: those delivered before, or new ones. A lost group is made again.
    pub(crate) fn read(&mut self, wanted: Wanted, count: usize) -> Result<Vec<RawEntry>, Lost> {
        self.arrives(self.run)?;
        let delivered = *self.data.group.get_or_insert(0);
        let ids: Vec<u64> = match wanted {
            Wanted::Pending => self.data.pending.iter().take(count).copied().collect(),
            Wanted::New => self.data.stream.range(delivered + 1..).take(count).map(|(id, _)| *id).collect(),
        };
        if wanted == Wanted::New {
            self.data.group = ids.last().copied().or(self.data.group);
            self.data.pending.extend(&ids);
        }
        let entry = |id: &u64| RawEntry {
            id: format!("{id}-0"),
            fields: self.data.stream.get(id).cloned().unwrap_or_default(),
        };
        self.answers(ids.iter().map(entry).collect())
    }

    /// Takes entries off the pending ones.
    pub(crate) fn acknowledge(&mut self, entries: &[RawEntry]) -> Result<(), Lost> {
        self.arrives(self.run)?;
        for entry in entries {
            self.data.pending.remove(&number(entry));
        }
        self.answers(())
    }

    /// Cuts off what is neither pending nor behind the last of these.
    pub(crate) fn trim(&mut self, entries: &[RawEntry]) -> Result<(), Lost> {
        self.arrives(self.run)?;
        let from = self.data.pending.first().copied().or_else(|| Some(number(entries.last()?) + 1));
        if let (Some(from), Some(_)) = (from, self.data.group) {
            self.data.stream = self.data.stream.split_off(&from);
        }
        self.answers(())
    }

    /// A gateway's beat; none while it is away.
    pub(crate) fn beat(&mut self, gateway: WriterId, now: i64) -> Option<Heard> {
        (!self.away).then(|| self.data.claims.beat(gateway, now))
    }

    /// A gateway's question about the allowance; none when it or its answer is lost, as one that is sent again and again
    /// is not.
    pub(crate) fn ask(
        &mut self,
        (gateway, sequence, gateways): (WriterId, u64, u32),
        ask: &Ask,
        now: i64,
        surely: bool,
    ) -> Option<(bool, Answer)> {
        if self.away || !surely && self.weather.strikes("redis: command lost") {
            return None;
        }
        let answer = self.data.claims.ask((), gateway, sequence, gateways, ask, now);
        if surely { Some(answer) } else { self.answers(answer).ok() }
    }

    /// What control published last of the allowance.
    pub(crate) fn funds(&self) -> Option<Funds> {
        self.data.funds.clone().filter(|_| !self.away)
    }

    /// Control publishes; whether it could.
    pub(crate) fn publish_funds(&mut self, funds: Funds) -> bool {
        if !self.away {
            self.data.funds = Some(funds);
        }
        !self.away
    }

    pub(crate) fn flush(&mut self) {
        self.data = Data::default();
        self.unclaimed = true;
    }

    pub(crate) fn save(&mut self) {
        self.saved = self.data.clone();
    }

    /// Comes back as another run: empty, or as it was saved.
    pub(crate) fn restart(&mut self, empty: bool) {
        self.data = if empty { Data::default() } else { self.saved.clone() };
        self.data.claims.restart();
        self.run += 1;
        self.unclaimed = true;
        self.late.clear();
    }

    fn append(&mut self, fields: Fields) {
        self.data.stream.insert(self.next, fields);
        self.next += 1;
    }

    fn arrives(&self, run: u64) -> Result<(), Lost> {
        let lost = self.away || run != self.run || self.weather.strikes("redis: command lost");
        if lost { Err(Lost) } else { Ok(()) }
    }

    fn answers<T>(&self, answer: T) -> Result<T, Lost> {
        if self.weather.strikes("redis: reply lost") { Err(Lost) } else { Ok(answer) }
    }
}

fn raw(entry: &Entry<Written>) -> Fields {
    entry.to_fields().into_iter().map(|(name, value)| (name.into(), value.into())).collect()
}

fn number(entry: &RawEntry) -> u64 {
    entry.id.split_once('-').and_then(|(number, _)| number.parse().ok()).expect("an id of this Redis")
}
