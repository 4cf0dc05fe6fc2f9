//! What one gateway holds of one limit: what it may decide alone, and when it must ask.
//!
//! Slots in use are counted by whoever owns them and passed in as `used`. Times are durations since any fixed moment.

use std::time::Duration;

use super::script::millis;
use super::{Answer, Ask, REFRESH, RENEW, Redis, Terms, parts, share};

/// How long at least one slot is kept ready after a call.
const KEEP: Duration = Duration::from_secs(10);

/// The slots of one limit that this gateway keeps ready, and what it knows of the rest.
#[derive(Clone, Debug, Default)]
pub struct Holding {
    free: u64,
    /// Slots that Redis last said we hold: used and free ones, unless something happened without it.
    claimed: u64,
    demand: Demand,
    /// None before the first answer.
    answered: Option<Answered>,
    /// Whether a question is on its way for which nobody waits.
    asking: bool,
    /// When a call last found no slot here.
    missed: Option<Duration>,
}

/// What the last answer said.
#[derive(Clone, Copy, Debug)]
struct Answered {
    at: Duration,
    left: u64,
    /// When the first used slot of another gateway comes free.
    next: Option<Duration>,
}

/// Calls of the busiest of the last seconds.
#[derive(Clone, Copy, Debug, Default)]
struct Demand {
    second: u64,
    calls: u64,
    busiest: u64,
    last: Option<Duration>,
}

/// Whether a call fits a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It does.
    Fits,
    /// It does not.
    Full,
    /// Redis has to be asked.
    Ask,
    /// Redis would have to be asked and is away.
    Unknown,
}

/// What everything is decided by: the rules, the time, and whether Redis is there.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// The rules of the limit.
    pub terms: Terms,
    /// The time.
    pub time: Duration,
    /// Whether Redis is there.
    pub redis: Redis,
    /// Gateways alive when Redis was last heard.
    pub gateways: u32,
}

impl Holding {
    /// Whether one more call fits beside `used` others.
    #[must_use]
    pub fn test(&self, used: u64, now: Now) -> Verdict {
        if used >= now.terms.limit {
            return Verdict::Full;
        }
        if self.free > 0 {
            return Verdict::Fits;
        }
        match now.redis {
            Redis::There if self.is_exhausted(now) => Verdict::Full,
            Redis::There => Verdict::Ask,
            Redis::Away if !now.terms.shared => Verdict::Unknown,
            Redis::Away if used < share(now.terms.limit, now.gateways) => Verdict::Fits,
            Redis::Away => Verdict::Full,
        }
    }

    /// Takes the slot of a call that fits.
    pub fn take(&mut self, now: Now) {
        self.demand.count(now.time);
        // Without a free one it is a slot of our share, which the next claim names.
        self.free = self.free.saturating_sub(1);
    }

    /// Notes a call for which there was no slot here.
    pub fn missed(&mut self, now: Now) {
        self.demand.count(now.time);
        self.missed = Some(now.time);
    }

    /// Takes slots back that are no longer used. While Redis is away they are not used again: a lease is spent once.
    pub fn give_back(&mut self, slots: u64, redis: Redis) {
        if redis == Redis::There {
            self.free += slots;
        }
    }

    /// Whether a question should be sent although no call waits for it; it is not due again until it was answered.
    pub fn is_due(&mut self, used: u64, now: Now) -> bool {
        if self.asking || now.redis == Redis::Away {
            return false;
        }
        let age = self.answered.map(|answered| now.time.saturating_sub(answered.at));
        let too_few = self.free < self.to_be_had(now).div_ceil(2);
        let too_many = self.free > self.ready(now).saturating_mul(2);
        // Not at each refusal: "none is left" was said a moment ago.
        let refused = self.lacking(now) > 0 && age.is_none_or(|age| age >= now.terms.recheck / 2);
        let is_shared = self.free > 0 && now.gateways > 1;
        let old = age.is_some_and(|age| age >= REFRESH && is_shared || age >= RENEW && used > 0);
        let off = self.claimed != used + self.free;
        self.asking = ((too_few || refused) && used < now.terms.limit) || too_many || off || old;
        self.asking
    }

    /// The question to send; `waiting` calls want a slot now. What is kept ready beyond need is given back with it.
    #[must_use]
    pub fn ask(&mut self, used: u64, base: u64, waiting: u64, next: Option<Duration>, now: Now) -> Ask {
        let wanted = self.demand.wanted(now);
        self.free = self.free.min(self.ready(now));
        // Half of it, so that other gateways find some too.
        let ahead = self.lacking(now).div_ceil(2).saturating_sub(waiting);
        Ask {
            must: used + self.free,
            need: waiting + ahead,
            spare: wanted.saturating_sub(self.free + ahead),
            limit: now.terms.limit + base,
            base,
            next: next.map(millis),
            linger: millis(now.terms.linger),
        }
    }

    /// Takes in the answer to a question; `asked` is what it said.
    pub fn answer(&mut self, asked: &Ask, answer: &Answer, now: Now) {
        self.asking = false;
        self.claimed = answer.held;
        self.free += answer.held.saturating_sub(asked.must);
        let next = answer.next.map(|next| now.time + Duration::from_millis(next));
        self.answered = Some(Answered { at: now.time, left: u64::try_from(answer.left).unwrap_or(0), next });
    }

    /// A question was not answered.
    pub fn unanswered(&mut self) {
        self.asking = false;
    }

    /// Redis was away for longer than a lease lives: it may have given what is kept ready to others.
    pub fn lapse(&mut self) {
        self.free = 0;
    }

    /// Gives up everything ready, because the gateway stops.
    pub fn close(&mut self) {
        self.free = 0;
        self.demand = Demand::default();
        self.missed = None;
    }

    /// Slots that nobody held when Redis last answered; 0 before that.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.answered.map_or(0, |answered| answered.left)
    }

    /// Slots ready or, as far as is known, to be had.
    #[must_use]
    pub fn remaining(&self, used: u64, now: Now) -> u64 {
        let room = now.terms.limit.saturating_sub(used);
        match now.redis {
            Redis::There => (self.free + self.answered.map_or(room, |answered| answered.left)).min(room),
            Redis::Away => self.free.max(share(now.terms.limit, now.gateways).saturating_sub(used)).min(room),
        }
    }

    /// When the first used slot of another gateway comes free.
    #[must_use]
    pub fn next_elsewhere(&self) -> Option<Duration> {
        self.answered.and_then(|answered| answered.next)
    }

    /// Whether Redis holds nothing for us and nothing is on its way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.free == 0 && self.claimed == 0 && !self.asking
    }

    /// Slots kept ready.
    #[must_use]
    pub fn free(&self) -> u64 {
        self.free
    }

    /// Slots to keep ready: those for which there is demand, and where there are too few all that came.
    fn ready(&self, now: Now) -> u64 {
        let kept = if self.was_missed(now) { self.demand.wanted(now).max(1) } else { 0 };
        self.to_be_had(now).max(kept)
    }

    /// Slots that calls want beyond those that are there, where one has found none.
    fn lacking(&self, now: Now) -> u64 {
        if self.was_missed(now) { self.demand.wanted(now).max(1).saturating_sub(self.free) } else { 0 }
    }

    /// Slots that are wanted, as far as what was left allows.
    fn to_be_had(&self, now: Now) -> u64 {
        let most = self.answered.map_or(0, |answered| (answered.left + self.free) / parts(now.gateways));
        self.demand.wanted(now).min(most)
    }

    fn was_missed(&self, now: Now) -> bool {
        self.missed.is_some_and(|missed| now.time.saturating_sub(missed) < now.terms.keen)
    }

    /// Whether Redis said not long ago that nothing is left.
    fn is_exhausted(&self, now: Now) -> bool {
        self.answered
            .is_some_and(|answered| answered.left == 0 && now.time.saturating_sub(answered.at) < now.terms.recheck)
    }
}

impl Demand {
    fn count(&mut self, now: Duration) {
        let second = now.as_secs();
        if second != self.second {
            self.busiest = self.level(second);
            (self.second, self.calls) = (second, 0);
        }
        self.calls += 1;
        self.last = Some(now);
    }

    /// Calls of the busiest second; older seconds count less and less.
    fn level(&self, second: u64) -> u64 {
        let passed = second.saturating_sub(self.second).min(64);
        (0..passed).fold(self.busiest.max(self.calls), |level, _| level * 3 / 4)
    }

    /// Slots that calls may want at once.
    fn wanted(&self, now: Now) -> u64 {
        let recent = self.last.is_some_and(|last| now.time.saturating_sub(last) < KEEP);
        self.level(now.time.as_secs()).max(u64::from(recent)).saturating_mul(u64::from(now.terms.ready))
    }
}

#[cfg(test)]
mod tests;
