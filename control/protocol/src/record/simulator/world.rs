//! Everything together: what each event does, and how everything comes to rest once nothing goes wrong any more.

mod allowance;
mod rest;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use super::Bug;
use super::chance::{Chance, Weather};
use super::disk::{Folder, Process, SimulatedDisk};
use super::gateway::Gateway;
use super::ingester::Ingester;
use super::options::{Event, Kind, Options};
use super::postgres::Postgres;
use super::redis::Redis;
use super::truth::Truth;
use crate::ids::{InvocationId, WriterId};
use crate::record::frame::{Entry, Reader};
use crate::record::log::LogUnwritable;
use crate::record::sample;
use crate::usage::{Admission, Outcome, Record};

/// A log's folder and who has its lock.
struct Place {
    folder: Rc<RefCell<Folder>>,
    holder: Option<Rc<Process>>,
}

/// The world of one run.
pub(crate) struct World {
    pub(crate) weather: Rc<Weather>,
    pub(crate) steps: u64,
    pub(crate) postgres: Postgres,
    pub(crate) truth: Truth,
    redis: Redis,
    quota: u64,
    /// When the desks of gateways beat last.
    beaten: Duration,
    /// When gateways were heard last that died and of which control has not published all calls.
    owed: BTreeMap<WriterId, Duration>,
    /// Whether something happened after which an allowance may be exceeded, as `crate::lease` says.
    lapsed: bool,
    places: BTreeMap<WriterId, Place>,
    gateways: Vec<Gateway>,
    ingesters: Vec<Ingester>,
    now: Duration,
    sample: Admission,
    bug: Option<Bug>,
}

impl World {
    pub(crate) fn new(options: &Options) -> Self {
        let weather = Weather::new(options.rates.clone());
        Self {
            steps: 0,
            postgres: Postgres::new(Rc::clone(&weather), options.bug),
            truth: Truth::default(),
            redis: Redis::new(Rc::clone(&weather)),
            quota: options.quota,
            beaten: Duration::ZERO,
            owed: BTreeMap::new(),
            lapsed: false,
            places: BTreeMap::new(),
            gateways: Vec::new(),
            ingesters: Vec::new(),
            now: Duration::from_secs(1),
            sample: sample::admission(0),
            bug: options.bug,
            weather,
        }
    }

    /// Runs events, then everything comes to rest.
    pub(crate) fn run(&mut self, events: &[Event]) -> Result<(), String> {
        for event in events {
            *self.weather.chance.borrow_mut() = Chance::new(event.roll);
            self.now += Duration::from_millis(2);
            self.step(event.kind)?;
        }
        self.come_to_rest()?;
        self.check_settled()?;
        self.truth.check(&self.postgres)
    }

    fn step(&mut self, kind: Kind) -> Result<(), String> {
        self.steps += 1;
        self.beat();
        if self.happens(kind)? {
            self.weather.count(kind.name());
        }
        self.after()?;
        if kind == Kind::Admit { self.check_allowance() } else { Ok(()) }
    }

    fn clock(&self) -> DateTime<Utc> {
        self.sample.started_at + TimeDelta::from_std(self.now).unwrap_or_default()
    }

    /// Does it; true if it was a fault that had something to hit.
    fn happens(&mut self, kind: Kind) -> Result<bool, String> {
        match kind {
            Kind::Admit | Kind::Relay | Kind::Finish | Kind::Abort => self.call(kind),
            Kind::BeginSync | Kind::EndSync | Kind::Refill | Kind::Ship | Kind::Adopt => self.keep(kind),
            Kind::Start => self.start(),
            Kind::Kill | Kind::KillSoon | Kind::Stop | Kind::StepClock => return Ok(self.disturb(kind)),
            Kind::Crash => return Ok(self.crash()),
            Kind::Flip => return Ok(self.flip()),
            Kind::Ingest => {
                let (now, which) = (self.clock(), self.any(self.ingesters.len()));
                if let Some(ingester) = which.and_then(|index| self.ingesters.get_mut(index)) {
                    let choice = self.weather.below(usize::MAX >> 1);
                    ingester.step(&mut self.redis, &mut self.postgres, (now, choice), self.bug)?;
                }
            }
            Kind::StartIngester if self.ingesters.len() < 2 => self.ingesters.push(Ingester::default()),
            Kind::StartIngester => {}
            Kind::KillIngester => return Ok(self.ingesters.pop().is_some()),
            Kind::RedisAway => self.redis.away = true,
            Kind::RedisBack => self.redis.away = false,
            Kind::RedisFlush => self.redis.flush(),
            Kind::RedisRestart => self.redis.restart(self.weather.below(2) == 0),
            Kind::RedisSave => self.redis.save(),
            Kind::RedisLate => {
                self.redis.deliver_late();
            }
            Kind::PostgresAway => self.postgres.away = true,
            Kind::PostgresBack => self.postgres.away = false,
            Kind::Publish => self.publish(),
            Kind::Export => self.postgres.close_hours(self.clock()),
            Kind::Wait => {
                let millis = [20, 300, 1_000, 12_000, 31_000, 900_000][self.weather.below(6)];
                self.wait(Duration::from_millis(millis));
            }
        }
        Ok(matches!(kind, Kind::RedisAway | Kind::RedisFlush | Kind::RedisRestart | Kind::PostgresAway))
    }

    fn any(&self, count: usize) -> Option<usize> {
        (count > 0).then(|| self.weather.below(count))
    }

    fn start(&mut self) {
        if self.gateways.len() >= 4 {
            return;
        }
        let writer = WriterId(self.uuid());
        let process = Process::new();
        let folder = Rc::new(RefCell::new(Folder::default()));
        let disk = self.disk(&folder, &process);
        self.places.insert(writer, Place { folder, holder: Some(Rc::clone(&process)) });
        match Gateway::start(writer, disk, (self.now, self.quota), self.bug) {
            Ok(mut gateway) => {
                gateway.skew = TimeDelta::milliseconds(self.weather.below(4000) as i64 - 2000);
                self.gateways.push(gateway);
            }
            Err(_) => process.alive.set(false),
        }
    }

    fn disk(&self, folder: &Rc<RefCell<Folder>>, process: &Rc<Process>) -> SimulatedDisk {
        SimulatedDisk {
            folder: Rc::clone(folder),
            process: Rc::clone(process),
            weather: Rc::clone(&self.weather),
            never_syncs: self.bug == Some(Bug::NeverSyncs),
        }
    }

    fn uuid(&self) -> Uuid {
        let mut chance = self.weather.chance.borrow_mut();
        Uuid::from_u64_pair(chance.next(), self.steps)
    }

    /// Something in a call.
    fn call(&mut self, kind: Kind) {
        let Some(which) = self.any(self.gateways.len()) else { return };
        let (id, base) = (InvocationId(self.uuid()), self.clock());
        let word = self.weather.below(usize::MAX >> 1);
        let gateway = &mut self.gateways[which];
        let now = gateway.clock(base);
        if kind == Kind::Admit {
            if !gateway.desk.enter(&mut self.redis, self.now, word) {
                return;
            }
            let admission = Admission { invocation: id, started_at: now, ..self.sample.clone() };
            let admitted = gateway.admit(admission, self.now);
            if admitted.is_err() {
                gateway.desk.leave(None, self.now, None);
            }
            if !matches!(admitted, Err(LogUnwritable::Busy | LogUnwritable::Full | LogUnwritable::Closed)) {
                self.truth.began((id, now), gateway.writer, admitted.is_ok() && gateway.process.alive.get());
            }
            return;
        }
        if gateway.flights.is_empty() {
            return;
        }
        let index = self.weather.below(gateway.flights.len());
        if kind == Kind::Relay {
            let key = gateway.flights[index].key;
            if let Some(got) = gateway.relay(index, self.now) {
                self.truth.attempt(&key).got = got;
            }
            return;
        }
        let outcome = if kind == Kind::Finish { Outcome::Finished } else { Outcome::Aborted };
        if let Some((key, record)) = gateway.finish(index, outcome, self.now)
            && gateway.process.alive.get()
        {
            self.truth.attempt(&key).told = Some(record);
        }
    }

    /// Something in the background of a gateway.
    fn keep(&mut self, kind: Kind) {
        let Some(which) = self.any(self.gateways.len()) else { return };
        let base = self.clock();
        let gateway = &mut self.gateways[which];
        match kind {
            Kind::BeginSync if gateway.syncing.is_none() => {
                let syncing = gateway.log.begin_sync();
                if !gateway.log.waits() {
                    gateway.in_sync.append(&mut gateway.unsynced);
                }
                gateway.syncing = Some(syncing);
            }
            Kind::EndSync => {
                let Some(syncing) = gateway.syncing.take() else { return };
                let outcome = syncing.run();
                if gateway.log.end_sync(&syncing, outcome).is_ok() {
                    self.truth.durable(gateway.in_sync.drain(..));
                } else {
                    gateway.unsynced.append(&mut gateway.in_sync);
                    // Killed in the middle of writing it again, nobody has what the disk dropped.
                    (gateway.rewriting, gateway.waited) = (true, true);
                }
            }
            Kind::Refill => {
                // Tried again later.
                let _ = gateway.log.refill();
            }
            Kind::Ship => {
                gateway.ship(&mut self.redis, self.now, base + gateway.skew);
                if gateway.between_steps() {
                    for writer in gateway.shipper.finished() {
                        gateway.shipper.forget(writer);
                        self.places.remove(&writer);
                    }
                }
            }
            Kind::Adopt if gateway.between_steps() => self.adopt(which),
            _ => {}
        }
    }

    fn adopt(&mut self, which: usize) {
        let free = |place: &Place| place.holder.as_ref().is_none_or(|holder| !holder.alive.get());
        let blind = self.bug == Some(Bug::AdoptsTheLiving);
        let own = self.gateways[which].writer;
        let dead: Vec<WriterId> = self
            .places
            .iter()
            .filter(|(writer, place)| free(place) || blind && **writer != own)
            .map(|(writer, _)| *writer)
            .collect();
        let Some(writer) = self.any(dead.len()).map(|index| dead[index]) else { return };
        let process = Rc::clone(&self.gateways[which].process);
        let place = self.places.get_mut(&writer).expect("a listed place");
        place.holder = Some(Rc::clone(&process));
        let folder = Rc::clone(&place.folder);
        let disk = self.disk(&folder, &process);
        match self.gateways[which].adopt(writer, disk, self.now) {
            Some((_, damaged)) => {
                self.truth.all_durable(writer);
                if damaged > 0 {
                    self.postgres.damaged.insert(writer);
                }
            }
            None => {
                self.places.get_mut(&writer).expect("a listed place").holder = None;
                if folder.borrow_mut().refused_a_sync() {
                    // Nobody has in memory what the disk has dropped of a dead writer's log.
                    self.truth.crashed(Some(writer));
                }
            }
        }
    }

    fn disturb(&mut self, kind: Kind) -> bool {
        let Some(which) = self.any(self.gateways.len()) else { return false };
        let gateway = &mut self.gateways[which];
        match kind {
            Kind::Kill => gateway.process.alive.set(false),
            Kind::KillSoon => gateway.process.killed_in.set(Some(self.weather.below(12) as u32)),
            Kind::Stop => {
                gateway.log.close();
            }
            _ => {
                let furthest = [4_000, 4_000, 600_000][self.weather.below(3)];
                gateway.skew += TimeDelta::milliseconds(self.weather.below(2 * furthest) as i64 - furthest as i64);
            }
        }
        true
    }

    fn crash(&mut self) -> bool {
        self.gateways.iter().for_each(|gateway| gateway.process.alive.set(false));
        self.bury();
        self.truth.crashed(None);
        for (writer, place) in &self.places {
            let mut folder = place.folder.borrow_mut();
            folder.crash(&mut self.weather.chance.borrow_mut());
            if folder.harmed {
                self.truth.harmed.insert(*writer);
            }
        }
        true
    }

    fn flip(&mut self) -> bool {
        let places: Vec<_> = self.places.iter().collect();
        let Some((writer, place)) = self.any(places.len()).map(|index| places[index]) else { return false };
        let flipped = place.folder.borrow_mut().flip(&mut self.weather.chance.borrow_mut());
        if flipped {
            self.truth.harmed.insert(*writer);
        }
        flipped
    }

    /// Takes away the gateways whose processes have died.
    fn bury(&mut self) {
        for gateway in self.gateways.extract_if(.., |gateway| !gateway.process.alive.get()) {
            // What it alone knew of the allowance, and what Redis lost of that.
            self.lapsed |= self.redis.unclaimed;
            self.owed.insert(gateway.writer, gateway.desk.heard.unwrap_or_default());
            let keys = gateway.unsynced.iter().chain(&gateway.in_sync).copied();
            if gateway.waited {
                self.truth.refused(keys, gateway.rewriting);
            }
        }
    }

    fn after(&mut self) -> Result<(), String> {
        self.bury();
        for gateway in &mut self.gateways {
            gateway.waited = gateway.log.waits();
            gateway.rewriting &= gateway.waited;
        }
        for place in self.places.values() {
            let removed = std::mem::take(&mut place.folder.borrow_mut().removed);
            for bytes in removed {
                self.check_removed(&bytes, &place.folder.borrow())?;
            }
        }
        Ok(())
    }

    /// What was removed is in Postgres, or still elsewhere in the log.
    fn check_removed(&self, bytes: &[u8], folder: &Folder) -> Result<(), String> {
        let keys = |bytes: &[u8]| {
            let mut reader = Reader::new(bytes);
            let mut keys = Vec::new();
            loop {
                match reader.next_entry::<Box<Record>>() {
                    Ok(Entry::Admitted(admission)) => keys.push((admission.invocation, admission.started_at)),
                    Ok(Entry::Final { record, .. }) => {
                        keys.push((record.admission.invocation, record.admission.started_at));
                    }
                    Ok(Entry::Opened { .. } | Entry::Skipped { .. }) => {}
                    Err(_) if reader.resume(false) => {}
                    Err(_) => break,
                }
            }
            keys
        };
        for key in keys(bytes).into_iter().filter(|key| !self.postgres.rows.contains_key(key)) {
            let elsewhere = folder.segments.values().any(|content| keys(&content.borrow().cache).contains(&key));
            let excused = !self.truth.attempts[&key].admitted || folder.harmed;
            if !elsewhere && !excused {
                let truth = &self.truth.attempts[&key];
                return Err(format!("{key:?} was deleted before it was in Postgres: {truth:?}"));
            }
        }
        Ok(())
    }
}
