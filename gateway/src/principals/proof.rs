//! Until when the invalidations of Redis are known to have arrived without a gap.

use std::collections::VecDeque;
use std::sync::RwLock;
use std::time::{Duration, Instant};

/// A stretch of time in which no invalidation was missed; a new one begins after each gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Epoch(u64);

/// Remembers the epochs and the last moment up to which each was proven.
pub(super) struct Proof {
    stale_after: Duration,
    state: RwLock<State>,
}

struct State {
    current: Epoch,
    /// None before the first connection.
    proven_at: Option<Instant>,
    /// Epochs that ended less than `stale_after` ago, each with its last proven moment.
    ended: VecDeque<(Epoch, Instant)>,
}

impl Proof {
    pub(super) fn new(stale_after: Duration) -> Self {
        let state = State { current: Epoch(0), proven_at: None, ended: VecDeque::new() };
        Self { stale_after, state: RwLock::new(state) }
    }

    /// The epoch in which a value read from now on counts as verified.
    pub(super) fn current(&self) -> Epoch {
        self.read(|state| state.current)
    }

    /// Begins an epoch: from `now` on every invalidation arrives; before it some may not have.
    pub(super) fn begin(&self, now: Instant) {
        self.write(|state| {
            if let Some(proven_at) = state.proven_at {
                state.ended.push_back((state.current, proven_at));
            }
            state.ended.retain(|(_, proven_at)| now.saturating_duration_since(*proven_at) <= self.stale_after);
            state.current = Epoch(state.current.0 + 1);
            state.proven_at = Some(now);
        });
    }

    /// Extends an epoch, if it is still the current one.
    pub(super) fn extend(&self, epoch: Epoch, proven_at: Instant) {
        self.write(|state| {
            if state.current == epoch {
                state.proven_at = state.proven_at.max(Some(proven_at));
            }
        });
    }

    /// Whether a value verified in the current epoch may be used without being read again.
    pub(super) fn is_fresh(&self, verified: Epoch, now: Instant) -> bool {
        self.read(|state| state.current == verified && self.within(state.proven_at, now))
    }

    /// Whether a value that cannot be read again now may still be used.
    pub(super) fn is_tolerable(&self, verified: Epoch, now: Instant) -> bool {
        self.read(|state| {
            let ended = state.ended.iter().find(|(epoch, _)| *epoch == verified).map(|(_, proven_at)| *proven_at);
            let proven_at = if state.current == verified { state.proven_at } else { ended };
            self.within(proven_at, now)
        })
    }

    fn within(&self, proven_at: Option<Instant>, now: Instant) -> bool {
        proven_at.is_some_and(|proven_at| now.saturating_duration_since(proven_at) <= self.stale_after)
    }

    fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.read().expect("nothing panics under this lock"))
    }

    fn write(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.write().expect("nothing panics under this lock"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STALE_AFTER: Duration = Duration::from_secs(30);

    #[test]
    fn nothing_is_fresh_before_the_first_connection() {
        let proof = Proof::new(STALE_AFTER);
        let now = Instant::now();
        assert!(!proof.is_fresh(proof.current(), now));
        assert!(!proof.is_tolerable(proof.current(), now));
    }

    #[test]
    fn a_value_is_fresh_until_stale_after_counted_from_the_last_proof() {
        let proof = Proof::new(STALE_AFTER);
        let start = Instant::now();
        proof.begin(start);
        let epoch = proof.current();
        proof.extend(epoch, start + Duration::from_secs(10));
        proof.extend(epoch, start + Duration::from_secs(5));
        assert!(proof.is_fresh(epoch, start + Duration::from_secs(40)));
        assert!(!proof.is_fresh(epoch, start + Duration::from_millis(40_001)));
    }

    #[test]
    fn after_a_gap_a_value_is_tolerable_but_not_fresh() {
        let proof = Proof::new(STALE_AFTER);
        let start = Instant::now();
        proof.begin(start);
        let before = proof.current();
        proof.begin(start + Duration::from_secs(20));
        assert!(!proof.is_fresh(before, start + Duration::from_secs(20)));
        assert!(proof.is_tolerable(before, start + Duration::from_secs(30)));
        assert!(!proof.is_tolerable(before, start + Duration::from_secs(31)));
        proof.extend(before, start + Duration::from_secs(25));
        assert!(!proof.is_tolerable(before, start + Duration::from_secs(31)));
    }

    #[test]
    fn ended_epochs_are_forgotten_once_they_are_stale() {
        let proof = Proof::new(STALE_AFTER);
        let start = Instant::now();
        for second in 0..1000 {
            proof.begin(start + Duration::from_secs(second));
        }
        assert!(proof.read(|state| state.ended.len()) <= 31);
    }
}
