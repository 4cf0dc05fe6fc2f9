//! A deterministic world around the production cores of the record path, in which everything fails by a seed.
//!
//! A seed draws the faults of a run, how often each strikes, and a list of events; each event draws what it needs from
//! its own number, so that a failing run can be made shorter by leaving events out. After the last event faults stop,
//! and within a bounded number of rounds everything has to be in Postgres.

pub(crate) mod chance;
mod desk;
pub(crate) mod disk;
mod gateway;
mod ingester;
mod options;
mod panics;
mod postgres;
mod redis;
mod tests;
mod truth;
mod world;

use std::collections::BTreeMap;

use options::{Event, Options};
use panics::{caught, quietly};
use world::World;

/// Mistakes that the simulator's own adapters can make, to show that it would find them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    /// The shipper deletes segments as if the mark were higher.
    DeletesEarly,
    /// The disk is never told to make anything durable.
    NeverSyncs,
    /// Postgres does not say which attempts it holds.
    ForgetsWhatItHolds,
    /// A mark goes up to the highest sequence that was seen.
    MarkPassesGaps,
    /// A late row goes into the hour in which it ended.
    LateRowsIntoTheirHour,
    /// A log is taken over although its writer lives.
    AdoptsTheLiving,
    /// Counters are not written down before the client gets what they count.
    NoSlots,
    /// The ingester publishes a mark that is not committed.
    PublishesTooMuch,
    /// A delivered call gives its place in the allowance back.
    GivesDeliveredBack,
    /// The ingester panics over an attempt that comes again.
    Panics,
}

/// What runs add up to.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub(crate) runs: u64,
    pub(crate) steps: u64,
    pub(crate) attempts: u64,
    pub(crate) rows: u64,
    pub(crate) hours: u64,
    pub(crate) faults: BTreeMap<&'static str, u64>,
}

impl Figures {
    fn add(&mut self, world: &World) {
        self.runs += 1;
        self.steps += world.steps;
        self.attempts += world.truth.attempts.len() as u64;
        self.rows += world.postgres.rows.len() as u64;
        self.hours += world.postgres.closed_hours() as u64;
        for (fault, count) in world.weather.counts.borrow().iter() {
            *self.faults.entry(fault).or_default() += count;
        }
    }

    pub(crate) fn merge(&mut self, other: Self) {
        self.runs += other.runs;
        self.steps += other.steps;
        self.attempts += other.attempts;
        self.rows += other.rows;
        self.hours += other.hours;
        for (fault, count) in other.faults {
            *self.faults.entry(fault).or_default() += count;
        }
    }
}

/// Runs a seed.
///
/// # Errors
/// With everything needed to run it again, and the shortest list of events found that fails too.
pub(crate) fn simulate(seed: u64, bug: Option<Bug>, figures: &mut Figures) -> Result<(), String> {
    let options = Options::draw(seed, bug);
    let events = options.schedule();
    let mut world = World::new(&options);
    let outcome = caught(|| world.run(&events));
    figures.add(&world);
    let Err(wrong) = outcome else { return Ok(()) };
    let (events, wrong) = quietly(|| shrink(&options, events, wrong));
    let steps: Vec<String> = events.iter().map(|event| format!("{:?} {:#x}", event.kind, event.roll)).collect();
    Err(format!("seed {seed}: {wrong}\n{options:?}\n{} events left: {}", events.len(), steps.join(", ")))
}

/// Leaves out ever smaller parts of the events as long as the run fails.
fn shrink(options: &Options, mut events: Vec<Event>, mut wrong: String) -> (Vec<Event>, String) {
    let mut part = events.len().div_ceil(2);
    while part > 0 {
        let mut from = 0;
        while from < events.len() {
            let mut fewer = events.clone();
            fewer.drain(from..(from + part).min(events.len()));
            match caught(|| World::new(options).run(&fewer)) {
                Err(still) => (events, wrong) = (fewer, still),
                Ok(()) => from += part,
            }
        }
        part /= 2;
    }
    (events, wrong)
}
