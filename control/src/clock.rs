//! The time of day, as a value that is passed down.

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};

/// Tells the time in whole microseconds, as Postgres keeps it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    offset: TimeDelta,
}

impl Clock {
    /// A clock that runs ahead by some seconds.
    #[must_use]
    pub fn ahead(seconds: i64) -> Self {
        Self { offset: TimeDelta::seconds(seconds) }
    }

    /// Now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub fn now(&self) -> DateTime<Utc> {
        (Utc::now() + self.offset).trunc_subsecs(6)
    }
}
