//! When an export hour may close: nothing that ended in it can still arrive, or it was waited for long enough.

use chrono::{DateTime, DurationRound as _, TimeDelta, Utc};

#[cfg(test)]
mod tests;

/// How long after its end an hour waits for writers that are silent.
pub const GRACE: TimeDelta = TimeDelta::minutes(20);

/// How far a gateway's clock may run ahead of ours.
const FURTHEST_AHEAD: TimeDelta = TimeDelta::hours(24);

const HOUR: TimeDelta = TimeDelta::hours(1);

/// What is known for certain of a writer: its newest beat whose sequence is in Postgres.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Writer {
    /// The clock of that beat; before the first one, the time at which the writer was first seen.
    pub clock: DateTime<Utc>,
    /// Whether the writer will write no more.
    pub closed: bool,
}

/// The end of the hour that holds a time.
#[must_use]
pub fn end_of(at: DateTime<Utc>) -> DateTime<Utc> {
    at.duration_trunc(HOUR).unwrap_or(DateTime::UNIX_EPOCH) + HOUR
}

/// The end of the hour whose file holds a row that ended at `completed_at`: its own while that is open, else the
/// oldest open. A clock that runs ahead puts it off by a day at most.
#[must_use]
pub fn end_for_row(completed_at: DateTime<Utc>, oldest_open: DateTime<Utc>, now: DateTime<Utc>) -> DateTime<Utc> {
    end_of(completed_at.min(now + FURTHEST_AHEAD)).max(oldest_open)
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
