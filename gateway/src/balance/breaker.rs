//! Decides from an instance's failures whether it takes calls: closed, open, or half-open for one trial.

use std::time::Duration;

/// Failures in a row that open the breaker.
const IN_A_ROW: u32 = 3;
/// Calls in the window from which the share of failures counts; half of them failed open the breaker.
const ENOUGH: u32 = 8;
/// Half of the window over which the share is taken.
const HALF_WINDOW: Duration = Duration::from_secs(5);
/// How long others are preferred after one failure.
const AVERTED: Duration = Duration::from_secs(1);
/// How long others are preferred after the instance said that it is full.
const FULL: Duration = Duration::from_millis(200);
/// How long a trial keeps other calls away: an answer in one piece may take minutes.
const TRIAL: Duration = Duration::from_secs(2);
/// The random part of the time open: up to so much is taken off, so that gateways and instances do not try in step.
const JITTER: f64 = 0.25;

/// How long a breaker stays open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The first time; doubled each time that follows soon.
    pub open: Duration,
    /// At most; also how long it must stay closed for its earlier openings to be forgotten.
    pub longest: Duration,
}

/// One instance's breaker. Times are durations since any fixed moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Breaker {
    state: State,
    /// Others are preferred until then.
    averted: Duration,
    in_a_row: u32,
    window: Window,
    /// Times it opened, each soon after the one before.
    openings: u32,
    trials: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed {
        since: Duration,
    },
    Open {
        until: Duration,
    },
    /// One trial is under way, or several where they take long.
    HalfOpen {
        first: Trial,
        last: Trial,
        since: Duration,
        until: Duration,
    },
}

/// The call that shows whether an instance works again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Trial(u32);

/// In which order instances are taken; the best that has a place comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// Takes calls.
    Good,
    /// Takes calls, but has just failed or said that it is full.
    Averted,
    /// Takes one call at a time, or after a while one more, since there is no better one.
    LastResort,
}

/// What a breaker does, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Closed,
    Averted,
    Open,
    /// Its trial is due or under way.
    HalfOpen,
}

/// Calls and failures of the last five to ten seconds.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    since: Duration,
    before: Tally,
    current: Tally,
}

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    calls: u32,
    failures: u32,
}

impl Default for State {
    fn default() -> Self {
        Self::Closed { since: Duration::ZERO }
    }
}

impl Breaker {
    /// How gladly the instance is taken; none while its trial has just begun. A call that has failed elsewhere is no
    /// trial while there is a better place for it.
    pub(super) fn rank(&self, first_attempt: bool, now: Duration) -> Option<Rank> {
        match self.state {
            State::Closed { .. } if now < self.averted => Some(Rank::Averted),
            State::Closed { .. } => Some(Rank::Good),
            State::Open { until } if until <= now && first_attempt => Some(Rank::Good),
            State::Open { .. } => Some(Rank::LastResort),
            State::HalfOpen { since, .. } => (now.saturating_sub(since) >= TRIAL).then_some(Rank::LastResort),
        }
    }

    /// How long it stays open yet.
    pub(super) fn remaining(&self, now: Duration) -> Duration {
        match self.state {
            State::Open { until } | State::HalfOpen { until, .. } => until.saturating_sub(now),
            State::Closed { .. } => Duration::ZERO,
        }
    }

    /// Notes that a call goes to the instance; whether it is a trial.
    pub(super) fn begin(&mut self, now: Duration) -> Option<Trial> {
        let last = Trial(self.trials.wrapping_add(1));
        let (first, until) = match self.state {
            State::Closed { .. } => return None,
            State::Open { until } => (last, until),
            State::HalfOpen { first, until, .. } => (first, until),
        };
        self.trials = last.0;
        self.state = State::HalfOpen { first, last, since: now, until };
        Some(last)
    }

    /// Notes that a call is being answered: if it is the trial, the breaker closes.
    pub(super) fn answered(&mut self, trial: Option<Trial>, now: Duration) {
        if self.is_trial(trial) {
            *self = Self { state: State::Closed { since: now }, in_a_row: 0, window: Window::default(), ..*self };
        }
    }

    /// Notes that a call went well.
    pub(super) fn works(&mut self, trial: Option<Trial>, now: Duration) {
        self.answered(trial, now);
        self.in_a_row = 0;
        self.window.note(false, now);
    }

    /// Notes that the instance has no place for a call of ours.
    pub(super) fn full(&mut self, trial: Option<Trial>, now: Duration) {
        self.answered(trial, now);
        self.averted = self.averted.max(now + FULL);
    }

    /// Notes that a call failed; `jitter` is between 0 and 1. Whether the breaker opened.
    pub(super) fn failed(&mut self, trial: Option<Trial>, rule: Rule, now: Duration, jitter: f64) -> bool {
        match self.state {
            State::Closed { since } => {
                self.averted = now + AVERTED;
                self.in_a_row = self.in_a_row.saturating_add(1);
                self.window.note(true, now);
                if self.in_a_row < IN_A_ROW && !self.window.is_bad() {
                    return false;
                }
                if now.saturating_sub(since) >= rule.longest {
                    self.openings = 0;
                }
                self.open(rule, now, jitter);
                true
            }
            // A last resort that failed before its time shows nothing that was not known.
            State::HalfOpen { until, .. } if self.is_trial(trial) && now < until => {
                self.state = State::Open { until };
                false
            }
            State::HalfOpen { .. } if self.is_trial(trial) => {
                self.open(rule, now, jitter);
                true
            }
            // A call from before the breaker opened.
            State::HalfOpen { .. } | State::Open { .. } => false,
        }
    }

    /// Notes that a call showed nothing: if it was the trial, the next call is.
    pub(super) fn unknown(&mut self, trial: Option<Trial>) {
        if let State::HalfOpen { until, .. } = self.state
            && self.is_trial(trial)
        {
            self.state = State::Open { until };
        }
    }

    /// What it does, for metrics.
    pub(super) fn standing(&self, now: Duration) -> Standing {
        match self.state {
            State::Closed { .. } if now < self.averted => Standing::Averted,
            State::Closed { .. } => Standing::Closed,
            // Nobody avoids it any more, though no call may come to try it.
            State::Open { until } if until <= now => Standing::HalfOpen,
            State::Open { .. } => Standing::Open,
            State::HalfOpen { .. } => Standing::HalfOpen,
        }
    }

    fn is_trial(&self, call: Option<Trial>) -> bool {
        let State::HalfOpen { first, last, .. } = self.state else { return false };
        call.is_some_and(|call| call.0.wrapping_sub(first.0) <= last.0.wrapping_sub(first.0))
    }

    fn open(&mut self, rule: Rule, now: Duration, jitter: f64) {
        let doubled = rule.open.saturating_mul(1 << self.openings.min(16));
        self.openings = self.openings.saturating_add(1);
        let time = doubled.min(rule.longest).mul_f64(1.0 - JITTER * jitter.clamp(0.0, 1.0));
        self.state = State::Open { until: now + time };
    }
}

impl Window {
    fn note(&mut self, failed: bool, now: Duration) {
        let age = now.saturating_sub(self.since);
        if age >= HALF_WINDOW {
            let before = if age < HALF_WINDOW * 2 { self.current } else { Tally::default() };
            *self = Self { since: now, before, current: Tally::default() };
        }
        self.current.calls = self.current.calls.saturating_add(1);
        self.current.failures = self.current.failures.saturating_add(u32::from(failed));
    }

    fn is_bad(&self) -> bool {
        let calls = self.before.calls.saturating_add(self.current.calls);
        let failures = self.before.failures.saturating_add(self.current.failures);
        calls >= ENOUGH && failures >= calls.div_ceil(2)
    }
}

#[cfg(test)]
mod tests;
