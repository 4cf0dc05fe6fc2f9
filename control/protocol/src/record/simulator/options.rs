//! What a seed draws: how large a run is, which faults it has and how often, and its events.

use std::collections::BTreeMap;

use super::Bug;
use super::chance::{Chance, FAULTS};

/// Something that happens; what exactly is drawn from `roll`, so that an event means the same without those before it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    pub(crate) kind: Kind,
    pub(crate) roll: u64,
}

/// Kinds of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Admit,
    Relay,
    Finish,
    Abort,
    BeginSync,
    EndSync,
    Refill,
    Ship,
    Ingest,
    Adopt,
    Start,
    Kill,
    KillSoon,
    Stop,
    Crash,
    StartIngester,
    KillIngester,
    RedisAway,
    RedisBack,
    RedisFlush,
    RedisRestart,
    RedisSave,
    RedisLate,
    PostgresAway,
    PostgresBack,
    Export,
    Publish,
    Wait,
    StepClock,
    Flip,
}

impl Kind {
    /// The fault it is, in the figures of runs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kill | Self::KillSoon => "gateway: killed",
            Self::Stop => "gateway: stopped",
            Self::Crash => "machine: crashed",
            Self::KillIngester => "ingester: killed",
            Self::RedisAway => "redis: away",
            Self::RedisFlush => "redis: flushed",
            Self::RedisRestart => "redis: restarted empty or as saved",
            Self::PostgresAway => "postgres: away",
            Self::StepClock => "gateway: clock set",
            Self::Flip => "disk: bit flipped",
            _ => "other",
        }
    }
}

/// How often each kind happens; those that are faults may be switched off.
const WEIGHTS: [(Kind, u32, bool); 30] = [
    (Kind::Admit, 200, false),
    (Kind::Relay, 200, false),
    (Kind::Finish, 160, false),
    (Kind::Abort, 30, false),
    (Kind::BeginSync, 80, false),
    (Kind::EndSync, 80, false),
    (Kind::Refill, 40, false),
    (Kind::Ship, 500, false),
    (Kind::Ingest, 400, false),
    (Kind::Adopt, 30, false),
    (Kind::Start, 12, false),
    (Kind::Kill, 5, true),
    (Kind::KillSoon, 5, true),
    (Kind::Stop, 3, true),
    (Kind::Crash, 2, true),
    (Kind::StartIngester, 15, false),
    (Kind::KillIngester, 10, true),
    (Kind::RedisAway, 6, true),
    (Kind::RedisBack, 25, false),
    (Kind::RedisFlush, 3, true),
    (Kind::RedisRestart, 4, true),
    (Kind::RedisSave, 12, false),
    (Kind::RedisLate, 15, false),
    (Kind::PostgresAway, 6, true),
    (Kind::PostgresBack, 25, false),
    (Kind::Export, 20, false),
    (Kind::Publish, 60, false),
    (Kind::Wait, 60, false),
    (Kind::StepClock, 5, true),
    (Kind::Flip, 2, true),
];

/// Everything a run draws but its events.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) seed: u64,
    pub(crate) events: usize,
    /// Calls that the one user of a run has.
    pub(crate) quota: u64,
    pub(crate) rates: BTreeMap<&'static str, u32>,
    pub(crate) weights: BTreeMap<Kind, u32>,
    pub(crate) bug: Option<Bug>,
}

impl Options {
    pub(crate) fn draw(seed: u64, bug: Option<Bug>) -> Self {
        let mut chance = Chance::new(seed);
        let harm = chance.below(4) == 0;
        let mut rates = BTreeMap::new();
        for fault in FAULTS {
            let rate = if chance.below(2) == 0 { 0 } else { [8, 40, 200][chance.below(3)] };
            rates.insert(fault, if fault == "disk: fsync lied" && !harm { 0 } else { rate });
        }
        let mut weights = BTreeMap::new();
        for (kind, weight, fault) in WEIGHTS {
            let off = fault && chance.below(2) == 0 || kind == Kind::Flip && !harm;
            weights.insert(kind, if off { 0 } else { weight });
        }
        let events = 200 + chance.below(1200);
        let quota = [20, 60, 10_000, 10_000][chance.below(4)];
        Self { seed, events, quota, rates, weights, bug }
    }

    /// The events of the run.
    pub(crate) fn schedule(&self) -> Vec<Event> {
        let mut chance = Chance::new(self.seed ^ 0x5EED);
        let all: u32 = self.weights.values().sum();
        let mut drawn = || {
            let mut at = chance.below(all as usize) as u32;
            for (kind, weight) in &self.weights {
                if at < *weight {
                    return Event { kind: *kind, roll: chance.next() };
                }
                at -= weight;
            }
            unreachable!("a number below the sum of all weights")
        };
        (0..self.events).map(|_| drawn()).collect()
    }
}
