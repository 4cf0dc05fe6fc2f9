//! The model of the scripts: what Redis remembers of limits and answers.

use std::collections::BTreeMap;

use super::script::millis;
use super::{Answer, Ask, DEAD_AFTER, FORGET, SETTLE, SILENT_AFTER, parts};
use crate::ids::WriterId;

/// All that Redis keeps of limits. Times are milliseconds of its own clock.
#[derive(Clone, Debug)]
pub struct Claims<K> {
    beats: BTreeMap<WriterId, i64>,
    since: Option<i64>,
    pools: BTreeMap<K, Pool>,
}

/// The claims on one limit.
#[derive(Clone, Debug, Default)]
struct Pool {
    base: u64,
    claims: BTreeMap<WriterId, Claim>,
}

#[derive(Clone, Copy, Debug)]
struct Claim {
    held: u64,
    sequence: u64,
    next: Option<i64>,
}

/// What a beat is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Whether Redis knew the gateway; if not, it lost all claims.
    pub known: bool,
    /// For how many milliseconds it has been settling or settled.
    pub age: u64,
    /// The gateways alive, this one included.
    pub alive: Vec<WriterId>,
}

impl<K> Default for Claims<K> {
    fn default() -> Self {
        Self { beats: BTreeMap::new(), since: None, pools: BTreeMap::new() }
    }
}

impl<K: Ord> Claims<K> {
    /// Loses everything.
    pub fn flush(&mut self) {
        *self = Self::default();
    }

    /// Comes back as another run, with what it had saved.
    pub fn restart(&mut self) {
        self.since = None;
    }

    /// A gateway says that it is there.
    pub fn beat(&mut self, gateway: WriterId, now: i64) -> Heard {
        let ago = |long| now - signed(millis(long));
        if self.beats.values().all(|beat| *beat < ago(SILENT_AFTER)) {
            self.since = None;
        }
        let known = self.beats.insert(gateway, now).is_some();
        self.beats.retain(|_, beat| *beat > now - signed(millis(FORGET)));
        let since = *self.since.insert(self.since.filter(|since| *since <= now).unwrap_or(now));
        let alive = self.beats.iter().filter(|(_, beat)| **beat >= ago(DEAD_AFTER));
        Heard { known, age: (now - since).unsigned_abs(), alive: alive.map(|(gateway, _)| *gateway).collect() }
    }

    /// A gateway asks; whether Redis has settled, and the answer.
    pub fn ask(
        &mut self,
        key: K,
        gateway: WriterId,
        sequence: u64,
        gateways: u32,
        ask: &Ask,
        now: i64,
    ) -> (bool, Answer) {
        let settled = self.since.is_some_and(|since| now - since >= signed(millis(SETTLE)));
        let pool = self.pools.entry(key).or_default();
        let base = pool.base.max(ask.base);
        let oldest = now - signed(millis(DEAD_AFTER) + ask.linger);
        let beats = &self.beats;
        pool.claims.retain(|name, _| *name == gateway || beats.get(name).is_some_and(|beat| *beat >= oldest));
        let others = || pool.claims.iter().filter(|(name, _)| **name != gateway).map(|(_, claim)| claim);
        let taken: u64 = others().map(|claim| claim.held).sum::<u64>() + base;
        let soonest = others().filter_map(|claim| claim.next).filter(|next| *next > now).min();
        let room = ask.limit.saturating_sub(taken + ask.must);
        let granted = ask.need.min(room);
        let ready = ask.spare.min((room - granted) / parts(gateways));
        let held = if settled { ask.must + granted + ready } else { ask.must };
        if pool.claims.get(&gateway).is_none_or(|claim| sequence > claim.sequence) {
            let next = ask.next.map(|next| now + signed(next));
            pool.claims.insert(gateway, Claim { held, sequence, next });
            pool.base = base;
        }
        let next = soonest.map(|next| (next - now).unsigned_abs());
        (settled, Answer { held, left: signed(ask.limit) - signed(taken + held), next })
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
