//! Says whether a caller may call now: per minute, at once, per day.
//!
//! A refused call takes nothing of any limit. All gateways share the limits (`protocol::lease`): a decision is made from
//! the slots held here, and a call waits for Redis only when it finds none and Redis has not just said so.

mod book;
mod quota;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use protocol::directory::Chute;
use protocol::ids::{ChuteId, UserId};
use protocol::lease::Terms;
use protocol::lease::holding::Verdict;
use protocol::lease::rate::Rate;
use protocol::lease::slots::Slots;
use protocol::principal::{UserEntry, permission};

pub use self::quota::{Quota, QuotaHold};
use crate::lease::{Leases, Moment, Subject};
use crate::metrics::Limit;
use crate::refusal::{Refusal, Standing, Whose};
use crate::sync::Map;

/// Pause between two sweeps of what is idle.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// How long a caller is believed to be at a limit without asking again.
const RECHECK: Duration = Duration::from_millis(250);
/// For how long after a caller was turned away his calls per minute are asked for ahead, as those of other gateways age.
const KEEN: Duration = Duration::from_secs(10);
/// How long the calls of a gateway that is gone count: a minute, and the second in which it began.
const MINUTE: Duration = Duration::from_secs(61);

/// The most that a caller may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caps {
    /// Calls per minute.
    pub per_minute: u32,
    /// Calls at once.
    pub at_once: u32,
}

/// The limits per minute and at once, per user and per user and chute.
pub struct Limits {
    default: Caps,
    leases: Arc<Leases>,
    users: Map<UserId, UserUse>,
}

/// A call that was let in; it counts as in flight until this is dropped.
pub struct Permit {
    /// None for callers without limits.
    taken: Option<Taken>,
}

struct Taken {
    limits: Arc<Limits>,
    user: UserId,
    /// The chute, if it has limits of its own.
    chute: Option<ChuteId>,
    standing: Standing,
}

/// What one user is using.
#[derive(Default)]
struct UserUse {
    all: Use,
    /// On chutes with limits of their own.
    chutes: HashMap<ChuteId, Use, ahash::RandomState>,
}

/// What is used of one pair of caps.
#[derive(Default)]
struct Use {
    caps: Caps,
    rate: Rate,
    at_once: Slots,
}

/// What came of a call that wants in.
enum Entrance {
    Open(Taken),
    Closed(Refusal),
    /// These limits have to be asked for.
    Ask(Vec<Subject>),
}

impl Limits {
    /// Limits with these defaults, shared by these leases.
    #[must_use]
    pub fn new(default: Caps, leases: Arc<Leases>) -> Self {
        Self { default, leases, users: Map::default() }
    }

    /// Whether it is known how many gateways share them; until then no call may be let in.
    #[must_use]
    pub fn are_known(&self) -> bool {
        self.leases.are_known()
    }

    /// Lets a call in, or says whose limit it is at.
    ///
    /// A chute without limits of its own allows each user what the user has anyway.
    ///
    /// # Errors
    /// [`Refusal::RateLimited`] or [`Refusal::TooManyAtOnce`]; [`Refusal::NotReady`] when Redis gives no clear answer.
    pub async fn take(self: &Arc<Self>, user: &UserEntry, chute: &Chute) -> Result<Permit, Refusal> {
        if user.permissions & permission::UNLIMITED != 0 {
            return Ok(Permit { taken: None });
        }
        let mut patience = self.leases.patience();
        let entrance = loop {
            match self.try_take(user, chute, self.leases.moment()) {
                Entrance::Open(taken) => break Ok(Permit { taken: Some(taken) }),
                Entrance::Closed(refusal) => break Err(refusal),
                Entrance::Ask(subjects) => {
                    if !patience.ask(subjects).await {
                        break Err(Refusal::NotReady("limits cannot be checked at the moment"));
                    }
                }
            }
        };
        self.leases.count(Limit::Caller, patience.has_asked());
        entrance
    }

    /// Decides from what is held here. All is tested and taken under the lock of this user's entry.
    fn try_take(self: &Arc<Self>, user: &UserEntry, chute: &Chute, moment: Moment) -> Entrance {
        let own = Caps {
            per_minute: user.rate_per_minute.unwrap_or(self.default.per_minute),
            at_once: user.max_concurrent.unwrap_or(self.default.at_once),
        };
        let is_limited = chute.rate_per_minute.is_some() || chute.max_concurrent.is_some();
        let limited = is_limited.then_some(chute.id);
        let mut user_use = self.users.entry(user.id).or_default();
        let UserUse { all, chutes } = &mut *user_use;
        all.caps = own;
        let mut on_chute = limited.map(|id| chutes.entry(id).or_default());
        if let Some(on_chute) = &mut on_chute {
            on_chute.caps = Caps {
                per_minute: chute.rate_per_minute.unwrap_or(own.per_minute),
                at_once: chute.max_concurrent.unwrap_or(own.at_once),
            };
        }
        let mut uses: Vec<(&mut Use, Whose, Option<ChuteId>)> = vec![(all, Whose::User, None)];
        uses.extend(on_chute.map(|on_chute| (on_chute, Whose::Chute, limited)));
        let mut missing = Vec::new();
        for (one, whose, chute) in &mut uses {
            if let Err(refusal) = one.test(*whose, (user.id, *chute), moment, &mut missing) {
                self.nudge_if_due(one, (user.id, *chute), moment);
                return Entrance::Closed(refusal);
            }
        }
        if !missing.is_empty() {
            return Entrance::Ask(missing);
        }
        let mut tightest: Option<Standing> = None;
        for (one, _, chute) in uses {
            let standing = one.take(moment);
            self.nudge_if_due(one, (user.id, chute), moment);
            tightest = tightest.filter(|held| held.remaining <= standing.remaining).or(Some(standing));
        }
        drop(user_use);
        let standing = tightest.unwrap_or(Standing { limit: own.per_minute, remaining: 0, reset: 0 });
        Entrance::Open(Taken { limits: Arc::clone(self), user: user.id, chute: limited, standing })
    }

    fn release(&self, user: UserId, chute: Option<ChuteId>) {
        let moment = self.leases.moment();
        // The entries are there: a sweep leaves those with calls in flight.
        let Some(mut user_use) = self.users.get_mut(&user) else { return };
        let UserUse { all, chutes } = &mut *user_use;
        for (one, chute) in [(Some(all), None), (chute.and_then(|id| chutes.get_mut(&id)), chute)] {
            if let Some(one) = one {
                one.at_once.release(moment.with(one.caps.at_once()));
                self.nudge_if_due(one, (user, chute), moment);
            }
        }
    }

    fn nudge_if_due(&self, one: &mut Use, (user, chute): (UserId, Option<ChuteId>), moment: Moment) {
        let (per_minute, at_once) = (moment.with(one.caps.per_minute()), moment.with(one.caps.at_once()));
        if one.rate.is_due(per_minute) && !self.leases.nudge(Subject::Rate(user, chute)) {
            one.rate.unanswered();
        }
        if one.at_once.is_due(at_once) && !self.leases.nudge(Subject::AtOnce(user, chute)) {
            one.at_once.unanswered();
        }
    }

    /// Forgets what is idle, for as long as it is polled.
    pub async fn sweep_always(self: Arc<Self>) {
        loop {
            tokio::time::sleep(SWEEP_EVERY).await;
            self.sweep(self.leases.moment());
        }
    }

    /// Forgets users and chutes without a call in flight or in the last minute, and of which nothing is held.
    fn sweep(&self, moment: Moment) {
        self.users.retain(|_, user| {
            user.chutes.retain(|_, chute| !chute.is_idle(moment));
            !(user.chutes.is_empty() && user.all.is_idle(moment))
        });
    }
}

impl Permit {
    /// Where the tighter of the two rate limits stands; none for callers without limits.
    #[must_use]
    pub fn standing(&self) -> Option<Standing> {
        self.taken.as_ref().map(|taken| taken.standing)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(taken) = &self.taken {
            taken.limits.release(taken.user, taken.chute);
        }
    }
}

impl Use {
    /// Whether one more call fits; adds to `missing` what has to be asked for.
    fn test(
        &mut self,
        whose: Whose,
        (user, chute): (UserId, Option<ChuteId>),
        moment: Moment,
        missing: &mut Vec<Subject>,
    ) -> Result<(), Refusal> {
        let now = moment.with(self.caps.per_minute());
        match self.rate.test(now) {
            Verdict::Fits => {}
            Verdict::Ask => {
                self.rate.missed(now);
                missing.push(Subject::Rate(user, chute));
            }
            Verdict::Full | Verdict::Unknown => {
                self.rate.missed(now);
                return Err(Refusal::RateLimited { whose, standing: self.standing(moment) });
            }
        }
        let now = moment.with(self.caps.at_once());
        match self.at_once.test(now) {
            Verdict::Fits => {}
            Verdict::Ask => {
                self.at_once.missed(now);
                missing.push(Subject::AtOnce(user, chute));
            }
            Verdict::Full | Verdict::Unknown => {
                self.at_once.missed(now);
                let standing = Standing { limit: self.caps.at_once, remaining: 0, reset: 1 };
                return Err(Refusal::TooManyAtOnce { whose, standing });
            }
        }
        Ok(())
    }

    /// Counts a call that fits.
    fn take(&mut self, moment: Moment) -> Standing {
        self.rate.take(moment.with(self.caps.per_minute()));
        self.at_once.take(moment.with(self.caps.at_once()));
        self.standing(moment)
    }

    fn standing(&self, moment: Moment) -> Standing {
        let now = moment.with(self.caps.per_minute());
        let remaining = u32::try_from(self.rate.remaining(now)).unwrap_or(u32::MAX);
        Standing { limit: self.caps.per_minute, remaining, reset: self.rate.reset(now) }
    }

    fn is_idle(&mut self, moment: Moment) -> bool {
        self.at_once.is_idle() && self.rate.is_idle(moment.with(self.caps.per_minute()))
    }
}

impl Caps {
    fn per_minute(self) -> Terms {
        Terms { limit: self.per_minute.into(), linger: MINUTE, recheck: RECHECK, keen: KEEN, ready: 1, shared: true }
    }

    fn at_once(self) -> Terms {
        Terms {
            limit: self.at_once.into(),
            linger: Duration::ZERO,
            recheck: RECHECK,
            keen: RECHECK,
            ready: 1,
            shared: true,
        }
    }
}

#[cfg(test)]
mod interleavings;
#[cfg(test)]
mod tests;
