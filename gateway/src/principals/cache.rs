//! A bounded map of principals that knows which of its values were overtaken.
//!
//! Why an outdated value cannot stay. A [`Ticket`] is taken before a value is read. Every change after that reading
//! makes Redis send an invalidation, which reaches [`Cache::invalidate`] either before the value is put in (then the
//! ticket is outdated and the value dropped) or after it (then the value loses its mark). If the connection breaks so
//! that it reaches neither, the epoch of the ticket has no further proof, and the value has to be read again.
//!
//! Versions are compared within one epoch only. There Redis is one and the same, and its write script never lowers a
//! version, so that an older one can only be an answer of control that was overtaken. A new epoch may be another Redis,
//! or one that control filled anew from a Postgres that was put back to an earlier state: what is read now counts, or
//! this gateway alone would keep a state that nobody else knows. Redis holds nothing that control did not write in its
//! order, and control fills it anew, from Postgres, as soon as it was emptied or restarted; one that came back with
//! older data is believed until then.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use protocol::principal::Versioned;

use super::proof::Epoch;
use crate::sync::Mutex;

/// How long "there is no such" is remembered.
const ABSENT_FOR: Duration = Duration::from_secs(5);
/// Parts with a lock each.
const SHARDS: usize = 64;
/// Of the room for values, the part that is given to "there is no such" besides.
const ABSENT_SHARE: usize = 4;

/// Principals of one kind by their Redis key.
pub(super) struct Cache<T> {
    shards: Vec<Mutex<Shard<T>>>,
    hasher: ahash::RandomState,
    shard_capacity: usize,
}

/// What the cache says about a key.
pub(super) enum Held<T> {
    /// It had this value in that epoch, and no invalidation has come since.
    Value(Arc<T>, Epoch),
    /// It had this value in that epoch, and has changed since.
    Overtaken(Arc<T>, Epoch),
    /// It did not exist in that epoch, a moment ago.
    Absent(Epoch),
    /// Has to be read.
    Unknown,
}

/// Permission to put in what is read after it was taken.
#[derive(Clone, Copy)]
pub(super) struct Ticket {
    epoch: Epoch,
    invalidations: u64,
}

/// What became of a value that was read.
pub(super) enum Settled<T> {
    /// It is in the cache; an older version than the one held in the same epoch gives the one held.
    Kept(Option<Arc<T>>),
    /// A change or a later epoch came in between; it is right for the reader that asked before, but not kept.
    Overtaken(Option<Arc<T>>),
}

struct Shard<T> {
    slots: HashMap<Arc<str>, Slot<T>, ahash::RandomState>,
    /// Every key of `slots` once: the order in which they are considered for eviction.
    order: VecDeque<Arc<str>>,
    absent: HashMap<Arc<str>, (Epoch, Instant), ahash::RandomState>,
    invalidations: u64,
}

struct Slot<T> {
    value: Arc<T>,
    version: u64,
    verified: Epoch,
    /// Whether an invalidation has come since.
    overtaken: bool,
    /// Whether it was asked for since eviction last passed by.
    used: bool,
}

impl<T> Cache<T> {
    /// A cache for about this many values.
    pub(super) fn new(capacity: usize) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::new(Shard::new())).collect();
        Self { shards, hasher: ahash::RandomState::new(), shard_capacity: capacity.div_ceil(SHARDS).max(1) }
    }

    /// What is known about a key.
    pub(super) fn find(&self, key: &str, now: Instant) -> Held<T> {
        let mut shard = self.shard(key);
        if let Some((epoch, until)) = shard.absent.get(key)
            && now < *until
        {
            return Held::Absent(*epoch);
        }
        match shard.slots.get_mut(key) {
            Some(Slot { value, verified, overtaken, used, .. }) => {
                *used = true;
                let held = if *overtaken { Held::Overtaken } else { Held::Value };
                held(Arc::clone(value), *verified)
            }
            None => Held::Unknown,
        }
    }

    /// Announces that a key is about to be read.
    pub(super) fn ticket(&self, key: &str, epoch: Epoch) -> Ticket {
        // The count is the shard's, not the key's: a change of a neighbour costs one more reading, and nothing has to
        // be cleaned up when a reader goes away.
        Ticket { epoch, invalidations: self.shard(key).invalidations }
    }

    /// Takes in what was read for a key.
    pub(super) fn settle(
        &self,
        key: &Arc<str>,
        ticket: Ticket,
        found: Option<Versioned<T>>,
        now: Instant,
    ) -> Settled<T> {
        let mut shard = self.shard(key);
        let overtaken = shard.invalidations != ticket.invalidations;
        let Some(found) = found else {
            if overtaken {
                return Settled::Overtaken(None);
            }
            shard.remember_absent(key, ticket.epoch, now, self.shard_capacity.div_ceil(ABSENT_SHARE));
            return Settled::Kept(None);
        };
        let held = shard.slots.get(key);
        let value = match held {
            Some(held) if (held.verified, held.version) > (ticket.epoch, found.version) => {
                Versioned { version: held.version, entry: held.value.clone() }
            }
            Some(_) | None => Versioned { version: found.version, entry: Arc::new(found.entry) },
        };
        // A value of a later epoch stays as it is: this reading says nothing about that epoch.
        let overtaken = overtaken || held.is_some_and(|held| held.verified > ticket.epoch);
        if overtaken {
            return Settled::Overtaken(Some(value.entry));
        }
        shard.absent.remove(key);
        let entry = Arc::clone(&value.entry);
        shard.insert(key, value, ticket.epoch, self.shard_capacity);
        Settled::Kept(Some(entry))
    }

    /// Takes note that a key has changed.
    pub(super) fn invalidate(&self, key: &str) {
        let mut shard = self.shard(key);
        shard.invalidations += 1;
        shard.absent.remove(key);
        if let Some(slot) = shard.slots.get_mut(key) {
            slot.overtaken = true;
        }
    }

    /// Number of values held.
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().expect("nothing panics under this lock").slots.len()).sum()
    }

    fn shard(&self, key: &str) -> MutexGuard<'_, Shard<T>> {
        let index = usize::try_from(self.hasher.hash_one(key) % SHARDS as u64).expect("a remainder below SHARDS");
        self.shards[index].lock().expect("nothing panics under this lock")
    }
}

impl<T> Shard<T> {
    fn new() -> Self {
        Self { slots: HashMap::default(), order: VecDeque::new(), absent: HashMap::default(), invalidations: 0 }
    }

    fn insert(&mut self, key: &Arc<str>, value: Versioned<Arc<T>>, epoch: Epoch, capacity: usize) {
        let slot = Slot { value: value.entry, version: value.version, verified: epoch, overtaken: false, used: false };
        if let Some(held) = self.slots.get_mut(key) {
            *held = slot;
            return;
        }
        while self.slots.len() >= capacity {
            self.evict_one();
        }
        self.slots.insert(Arc::clone(key), slot);
        self.order.push_back(Arc::clone(key));
    }

    /// Drops the first value that was not asked for since its last turn.
    fn evict_one(&mut self) {
        while let Some(key) = self.order.pop_front() {
            match self.slots.get_mut(&key) {
                Some(slot) if slot.used => {
                    slot.used = false;
                    self.order.push_back(key);
                }
                Some(_) | None => {
                    self.slots.remove(&key);
                    return;
                }
            }
        }
    }

    fn remember_absent(&mut self, key: &Arc<str>, epoch: Epoch, now: Instant, capacity: usize) {
        if self.absent.len() >= capacity {
            self.absent.retain(|_, (_, until)| now < *until);
        }
        if self.absent.len() >= capacity {
            // Somebody tries keys by the thousand: forgetting them all costs a reading each, not memory.
            self.absent.clear();
        }
        self.absent.insert(Arc::clone(key), (epoch, now + ABSENT_FOR));
    }
}

#[cfg(test)]
mod tests;
