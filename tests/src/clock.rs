//! The time of day, as the one thing here that asks the system for it.

use chrono::{DateTime, Utc};

/// Now.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub fn now() -> DateTime<Utc> {
    Utc::now()
}
