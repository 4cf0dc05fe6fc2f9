//! Says whether a caller may call now: per minute, at once, per day.
//!
//! The limits are this process's own. A refused call takes nothing of any of them.

mod concurrency;
mod quota;
mod rate;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use dashmap::DashMap;
use protocol::directory::Chute;
use protocol::ids::{ChuteId, UserId};
use protocol::principal::{UserEntry, permission};

use self::concurrency::AtOnce;
pub use self::quota::{Quota, QuotaHold};
use self::rate::Window;
use crate::clock::Clock;
use crate::refusal::{Refusal, Standing, Whose};

/// Pause between two sweeps of what is idle.
const SWEEP_EVERY: Duration = Duration::from_secs(10);

/// How much is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// Calls per minute.
    pub per_minute: u32,
    /// Calls at once.
    pub at_once: u32,
}

/// The limits per minute and at once, per user and per user and chute.
pub struct Limits {
    default: Allowance,
    users: Arc<Users>,
}

type Users = DashMap<UserId, UserUse, ahash::RandomState>;

/// A call that was let in; it counts as in flight until this is dropped.
pub struct Permit {
    /// None for callers without limits.
    taken: Option<Taken>,
}

struct Taken {
    users: Arc<Users>,
    user: UserId,
    chute: ChuteId,
    standing: Standing,
}

/// What one user is using.
#[derive(Default)]
struct UserUse {
    all: Use,
    chutes: HashMap<ChuteId, Use, ahash::RandomState>,
}

/// What is used of one allowance.
#[derive(Default)]
struct Use {
    window: Window,
    at_once: AtOnce,
}

impl Limits {
    /// Limits with these defaults.
    #[must_use]
    pub fn new(default: Allowance) -> Self {
        Self { default, users: Arc::default() }
    }

    /// Lets a call in, or says whose limit it is at.
    ///
    /// A chute without limits of its own allows each user what the user has anyway.
    ///
    /// # Errors
    /// [`Refusal::RateLimited`] or [`Refusal::TooManyAtOnce`].
    pub fn take(&self, user: &UserEntry, chute: &Chute, now: DateTime<Utc>) -> Result<Permit, Refusal> {
        if user.permissions & permission::UNLIMITED != 0 {
            return Ok(Permit { taken: None });
        }
        let own = Allowance {
            per_minute: user.rate_per_minute.unwrap_or(self.default.per_minute),
            at_once: user.max_concurrent.unwrap_or(self.default.at_once),
        };
        let on_chute = Allowance {
            per_minute: chute.rate_per_minute.unwrap_or(own.per_minute),
            at_once: chute.max_concurrent.unwrap_or(own.at_once),
        };
        let second = now.timestamp();
        // All is tested and taken under the lock of this user's entry.
        let mut user_use = self.users.entry(user.id).or_default();
        let UserUse { all, chutes } = &mut *user_use;
        let chute_use = chutes.entry(chute.id).or_default();
        all.test(own, Whose::User, second)?;
        chute_use.test(on_chute, Whose::Chute, second)?;
        let standings = [all.take(own, second), chute_use.take(on_chute, second)];
        let [user_standing, chute_standing] = standings;
        let standing = if chute_standing.remaining < user_standing.remaining { chute_standing } else { user_standing };
        drop(user_use);
        let users = Arc::clone(&self.users);
        Ok(Permit { taken: Some(Taken { users, user: user.id, chute: chute.id, standing }) })
    }

    /// Forgets what is idle, for as long as it is polled.
    pub async fn sweep_always(self: Arc<Self>, clock: Clock) {
        loop {
            tokio::time::sleep(SWEEP_EVERY).await;
            self.sweep(clock.now());
        }
    }

    /// Forgets users and chutes without a call in flight or in the last minute.
    pub fn sweep(&self, now: DateTime<Utc>) {
        let second = now.timestamp();
        self.users.retain(|_, user| {
            user.chutes.retain(|_, chute| !chute.is_idle(second));
            !(user.chutes.is_empty() && user.all.is_idle(second))
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
        let Some(taken) = &self.taken else { return };
        // The entries are there: a sweep leaves those with calls in flight.
        if let Some(mut user) = taken.users.get_mut(&taken.user) {
            user.all.at_once.release();
            if let Some(chute) = user.chutes.get_mut(&taken.chute) {
                chute.at_once.release();
            }
        }
    }
}

impl Use {
    /// Whether one more call fits.
    fn test(&mut self, allowance: Allowance, whose: Whose, second: i64) -> Result<(), Refusal> {
        if self.window.used(second) >= allowance.per_minute {
            return Err(Refusal::RateLimited { whose, standing: self.window.standing(allowance.per_minute, second) });
        }
        if !self.at_once.fits(allowance.at_once) {
            let standing = Standing { limit: allowance.at_once, remaining: 0, reset: 1 };
            return Err(Refusal::TooManyAtOnce { whose, standing });
        }
        Ok(())
    }

    /// Counts a call that fits.
    fn take(&mut self, allowance: Allowance, second: i64) -> Standing {
        self.window.count(second);
        self.at_once.take();
        self.window.standing(allowance.per_minute, second)
    }

    fn is_idle(&mut self, second: i64) -> bool {
        self.at_once.is_none() && self.window.used(second) == 0
    }
}

#[cfg(test)]
mod tests;
