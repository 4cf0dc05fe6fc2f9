//! The ingester's side of a writer's sequence: how far it is in Postgres without a gap.

use std::ops::RangeInclusive;

use crate::usage::Beat;

#[cfg(test)]
mod tests;

/// The highest contiguous sequence once these, in any order and with repetitions, are stored beside all up to `mark`.
///
/// What lies behind a gap does not count: the writer sends everything above the mark again.
#[must_use]
pub fn advance(mark: u64, stored: impl IntoIterator<Item = RangeInclusive<u64>>) -> u64 {
    let mut ahead: Vec<(u64, u64)> = stored.into_iter().map(RangeInclusive::into_inner).collect();
    ahead.sort_unstable();
    ahead.into_iter().fold(
        mark,
        |reached, (from, through)| {
            if from <= reached.saturating_add(1) { reached.max(through) } else { reached }
        },
    )
}

/// Whether a beat holds: everything it speaks of is stored.
#[must_use]
pub fn confirms(mark: u64, beat: &Beat) -> bool {
    beat.sequence <= mark
}
