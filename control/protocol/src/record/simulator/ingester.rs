//! The ingester's duty, step by step, so that it can die between any two.

use chrono::{DateTime, Utc};

use super::Bug;
use super::postgres::Postgres;
use super::redis::Redis;
use crate::ids::WriterId;
use crate::record::batch::RawEntry;

/// Most entries of one read.
const COUNT: usize = 50;

/// What it does next, with what it has in hand.
#[derive(Debug, Default)]
pub(crate) enum Ingester {
    #[default]
    PublishAll,
    Read {
        pending: bool,
    },
    Store(Vec<RawEntry>, bool),
    Publish(Vec<RawEntry>, Vec<(WriterId, u64)>, bool),
    Acknowledge(Vec<RawEntry>, bool),
    Trim(Vec<RawEntry>, bool),
}

impl Ingester {
    /// Takes the next step; a failure begins anew. True if there was nothing to do.
    pub(crate) fn step(
        &mut self,
        redis: &mut Redis,
        postgres: &mut Postgres,
        now: DateTime<Utc>,
        bug: Option<Bug>,
    ) -> Result<bool, String> {
        let mut idle = false;
        let next = match std::mem::take(self) {
            Self::PublishAll => match postgres.marks() {
                Ok(marks) => redis.publish(&marks, true).ok().map(|()| Self::Read { pending: true }),
                Err(_) => None,
            },
            Self::Read { pending } => redis.read(pending, COUNT).ok().map(|entries| {
                idle = entries.is_empty() && !pending;
                match (entries.is_empty(), pending) {
                    (false, _) => Self::Store(entries, pending),
                    (true, true) => Self::Read { pending: false },
                    (true, false) => Self::PublishAll,
                }
            }),
            Self::Store(entries, pending) => match postgres.store(&entries, now) {
                Ok(marks) => Some(Self::Publish(entries, marks?, pending)),
                Err(_) => None,
            },
            Self::Publish(entries, mut marks, pending) => {
                if bug == Some(Bug::PublishesTooMuch) {
                    marks.iter_mut().for_each(|(_, mark)| *mark += 1);
                }
                redis.publish(&marks, false).ok().map(|()| Self::Acknowledge(entries, pending))
            }
            Self::Acknowledge(entries, pending) => {
                redis.acknowledge(&entries).ok().map(|()| Self::Trim(entries, pending))
            }
            Self::Trim(entries, pending) => redis.trim(&entries).ok().map(|()| Self::Read { pending }),
        };
        *self = next.unwrap_or_default();
        Ok(idle)
    }
}
