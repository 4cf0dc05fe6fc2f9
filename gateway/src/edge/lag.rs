//! Watches how long ready work waits for the processor, and which share of new calls that leaves room for.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// Shortest pause between two looks: a look costs a turn in the queue.
const LOOK: Duration = Duration::from_millis(5);
/// How long the wait must be too long, at every look, before calls are refused: one hiccup is no overload.
const PATIENCE: Duration = Duration::from_millis(500);
/// What a look that finds too long a wait leaves of the share.
const LESS: f64 = 0.95;
/// What a second without one adds to it.
const MORE_PER_SECOND: f64 = 0.5;
/// The share that is always let in. A refusal costs the processor about a tenth of a call: where refusals alone keep
/// it busy, to refuse still more would not shorten the wait.
const LEAST: f64 = 0.2;

/// How long work waits, as its own tasks see it.
pub(super) struct Lag {
    most: Duration,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug)]
struct State {
    looked: Option<Instant>,
    noted: Option<Instant>,
    /// Since when every look showed too long a wait.
    over_since: Option<Instant>,
    share: f64,
}

impl Lag {
    /// Work may wait this long.
    pub(super) fn new(most: Duration) -> Self {
        Self { most, state: Mutex::new(State { looked: None, noted: None, over_since: None, share: 1.0 }) }
    }

    /// Looks, unless somebody has a moment ago: takes one turn in the queue of ready work; how long that took.
    pub(super) async fn look(&self) -> Option<Duration> {
        let started = Instant::now();
        if !self.is_due(started) {
            return None;
        }
        tokio::task::yield_now().await;
        let waited = started.elapsed();
        self.note(waited, started + waited);
        Some(waited)
    }

    /// Whether one more call is let in; `chance` is drawn evenly from 0 to 1.
    pub(super) fn lets_in(&self, chance: f64) -> bool {
        chance < self.state().share
    }

    fn is_due(&self, now: Instant) -> bool {
        let mut state = self.state();
        let due = state.looked.is_none_or(|looked| now.saturating_duration_since(looked) >= LOOK);
        if due {
            state.looked = Some(now);
        }
        due
    }

    fn note(&self, waited: Duration, now: Instant) {
        let mut state = self.state();
        let since = state.noted.replace(now).map_or(Duration::ZERO, |noted| now.saturating_duration_since(noted));
        if waited <= self.most {
            state.over_since = None;
            state.share = (state.share + MORE_PER_SECOND * since.as_secs_f64()).min(1.0);
        } else if now.saturating_duration_since(*state.over_since.get_or_insert(now)) >= PATIENCE {
            state.share = (state.share * LESS).max(LEAST);
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Duration = Duration::from_millis(50);

    /// What is let in after so many looks, one every 100 ms from `start` on, that each found this wait.
    fn after(lag: &Lag, waited: Duration, looks: u32, start: Instant) -> f64 {
        (1..=looks).for_each(|look| lag.note(waited, start + look * Duration::from_millis(100)));
        lag.state().share
    }

    #[test]
    fn a_hiccup_refuses_nobody() {
        let (lag, start) = (Lag::new(MOST), Instant::now());
        assert_eq!(after(&lag, MOST * 20, 5, start), 1.0);
        assert_eq!(after(&lag, MOST, 1, start + Duration::from_secs(1)), 1.0);
        assert_eq!(after(&lag, MOST * 20, 5, start + Duration::from_secs(2)), 1.0);
    }

    #[test]
    fn a_wait_that_stays_too_long_refuses_more_and_more_but_never_all() {
        let (lag, start) = (Lag::new(MOST), Instant::now());
        let some = after(&lag, MOST * 2, 10, start);
        assert!((0.7..0.9).contains(&some), "{some}");
        assert_eq!(after(&lag, MOST * 2, 200, start + Duration::from_secs(1)), LEAST);
        assert!(lag.lets_in(LEAST - 0.01) && !lag.lets_in(LEAST));
    }

    #[test]
    fn two_seconds_without_too_long_a_wait_let_all_in_again_however_few_look() {
        let (lag, start) = (Lag::new(MOST), Instant::now());
        after(&lag, MOST * 2, 200, start);
        lag.note(MOST, start + Duration::from_secs(21));
        assert!(lag.state().share < 0.9);
        lag.note(MOST, start + Duration::from_secs(22));
        assert_eq!(lag.state().share, 1.0);
    }

    #[tokio::test]
    async fn a_look_waits_for_what_is_ready_and_is_not_taken_twice_at_once() {
        let lag = Lag::new(MOST);
        let slow = async { std::thread::sleep(Duration::from_millis(30)) };
        let (waited, ()) = tokio::join!(biased; lag.look(), slow);
        assert!(waited.unwrap() >= Duration::from_millis(30));
        let (first, second) = tokio::join!(lag.look(), lag.look());
        assert!(first.is_some() && second.is_none());
    }
}
