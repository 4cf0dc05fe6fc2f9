//! The production's ingester on stand-ins: what is under way ends in an order of chance, and it can die between any two
//! steps.

use chrono::{DateTime, Utc};

use super::Bug;
use super::postgres::Postgres;
use super::redis::Redis;
use crate::record::batch::RawEntry;
use crate::record::ingest::{Arrived, Done, Ingest, Kept, Step};

/// Most entries of one read.
const COUNT: usize = 50;
/// Steps for which a run has time to read.
const STEPS: usize = 100;

/// An ingester in the middle of a run.
#[derive(Debug, Default)]
pub(crate) struct Ingester {
    run: Ingest,
    under_way: Vec<Task>,
    steps: usize,
}

#[derive(Debug)]
enum Task {
    Step(Step),
    /// The second half of [`Step::LetGo`].
    Trim(Vec<RawEntry>),
}

impl Ingester {
    /// Ends one of the steps under way, of which `choice` tells; a run that is over or failed begins anew.
    pub(crate) fn step(
        &mut self,
        redis: &mut Redis,
        postgres: &mut Postgres,
        (now, choice): (DateTime<Utc>, usize),
        bug: Option<Bug>,
    ) -> Result<(), String> {
        while let Some(step) = self.run.next(self.steps < STEPS) {
            self.under_way.push(Task::Step(step));
        }
        self.steps += 1;
        let Some(index) = choice.checked_rem(self.under_way.len()) else {
            *self = Self::default();
            return Ok(());
        };
        match self.under_way.swap_remove(index) {
            Task::Step(Step::LetGo(entries)) => match redis.acknowledge(&entries) {
                Ok(()) => self.under_way.push(Task::Trim(entries)),
                Err(_) => *self = Self::default(),
            },
            Task::Step(step) => match take(step, redis, postgres, now, bug)? {
                Some(done) => self.run.done(done),
                None => *self = Self::default(),
            },
            Task::Trim(entries) => match redis.trim(&entries) {
                Ok(()) => self.run.done(Done::Gone),
                Err(_) => *self = Self::default(),
            },
        }
        Ok(())
    }
}

/// Takes a step in one go; none if an end is gone, which may have done it all the same.
fn take(
    step: Step,
    redis: &mut Redis,
    postgres: &mut Postgres,
    now: DateTime<Utc>,
    bug: Option<Bug>,
) -> Result<Option<Done>, String> {
    Ok(match step {
        Step::ReadMarks => postgres.marks().ok().map(Done::Marks),
        Step::ReplaceMarks(marks) => redis.publish(&marks, true).ok().map(|()| Done::Replaced),
        Step::Read(wanted) => redis.read(wanted, COUNT).ok().map(|entries| {
            let arrived = (!entries.is_empty()).then(|| Arrived::new(entries));
            Done::Read(arrived)
        }),
        Step::Store(Arrived { entries, batch }) => match postgres.store(&batch, now) {
            Ok(marks) => Some(Done::Stored(Kept { entries, marks: marks? })),
            Err(_) => None,
        },
        Step::Publish(mut marks) => {
            if bug == Some(Bug::PublishesTooMuch) {
                marks.iter_mut().for_each(|(_, mark)| *mark += 1);
            }
            redis.publish(&marks, false).ok().map(|()| Done::Published)
        }
        Step::LetGo(_) => unreachable!("taken in two"),
    })
}
