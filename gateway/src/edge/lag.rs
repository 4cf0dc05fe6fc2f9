//! Watches how long ready work waits for the processor, and which share of new calls that leaves room for.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// Shortest pause between two looks: a look costs a turn in the queue.
const LOOK: Duration = Duration::from_millis(5);
/// How long the wait must be too long, at every look, before calls are refused: one hiccup is no overload.
const PATIENCE: Duration = Duration::from_millis(100);
/// What a look too long leaves of the share, and what a look that is fine adds to it.
const LESS: f64 = 0.9;
const MORE: f64 = 0.01;
/// The share that is always let in, so that there is something to look at.
const LEAST: f64 = 0.01;

/// How long work waits, as its own tasks see it.
pub(super) struct Lag {
    most: Duration,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug)]
struct State {
    looked: Option<Instant>,
    /// Since when every look showed too long a wait.
    over_since: Option<Instant>,
    share: f64,
}

impl Lag {
    /// Work may wait this long.
    pub(super) fn new(most: Duration) -> Self {
        Self { most, state: Mutex::new(State { looked: None, over_since: None, share: 1.0 }) }
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
        if waited <= self.most {
            state.over_since = None;
            state.share = (state.share + MORE).min(1.0);
        } else if now.saturating_duration_since(*state.over_since.get_or_insert(now)) >= PATIENCE {
            state.share = (state.share * LESS).max(LEAST);
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
