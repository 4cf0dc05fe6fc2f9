//! When an export hour may close: nothing that ended in it can still arrive, or it was waited for long enough.

use chrono::{DateTime, TimeDelta, Utc};

#[cfg(test)]
mod tests;

/// How long after its end an hour waits for writers that are silent.
pub const GRACE: TimeDelta = TimeDelta::minutes(20);

const HOUR: TimeDelta = TimeDelta::hours(1);

/// What is known for certain of a writer: its newest beat whose sequence is in Postgres.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Writer {
    /// The clock of that beat; before the first one, the time at which the writer was first seen.
    pub clock: DateTime<Utc>,
    /// Whether the writer will write no more.
    pub closed: bool,
}

/// Whether the hour that ends at `end` may close.
///
/// A writer that the hour before already gave up on (silent since more than the grace before this hour began)
/// holds nothing up: what it still has goes into the oldest open hour when its log is found.
#[must_use]
pub fn may_close(end: DateTime<Utc>, now: DateTime<Utc>, writers: impl IntoIterator<Item = Writer>) -> bool {
    if now < end {
        return false;
    }
    let given_up = end - HOUR - GRACE;
    now >= end + GRACE
        || writers.into_iter().all(|writer| writer.closed || writer.clock >= end || writer.clock < given_up)
}
