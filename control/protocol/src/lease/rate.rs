//! A limit of calls per minute: a call uses its slot until a minute after it began.

use std::time::Duration;

use super::holding::{Holding, Now, Verdict};
use super::window::Window;
use super::{Answer, Ask, REFRESH};

/// The calls of the last minute, and the slots for more.
#[derive(Clone, Debug, Default)]
pub struct Rate {
    window: Window,
    holding: Holding,
}

impl Rate {
    /// Whether one more call fits now.
    pub fn test(&mut self, now: Now) -> Verdict {
        self.age(now);
        self.holding.test(self.window.total(), now)
    }

    /// Counts a call that fits.
    pub fn take(&mut self, now: Now) {
        self.holding.take(now);
        self.window.count(now.time);
    }

    /// Notes a call for which there was no slot here.
    pub fn missed(&mut self, now: Now) {
        self.holding.missed(now);
    }

    /// Whether a question should be sent although no call waits for it.
    pub fn is_due(&mut self, now: Now) -> bool {
        self.age(now);
        self.holding.is_due(self.window.total(), now)
    }

    /// The question to send.
    #[must_use]
    pub fn ask(&mut self, waiting: u64, now: Now) -> Ask {
        self.age(now);
        let next = self.window.shrinks_below(self.window.total()).map(|at| at.saturating_sub(now.time));
        self.holding.ask(self.window.total(), 0, waiting, next, now)
    }

    /// The slots for more calls.
    #[must_use]
    pub fn holding(&self) -> &Holding {
        &self.holding
    }

    /// A question was not sent, or not answered.
    pub fn unanswered(&mut self) {
        self.holding.unanswered();
    }

    /// Redis may have given what is kept ready to others.
    pub fn lapse(&mut self) {
        self.holding.lapse();
    }

    /// Gives up what is kept ready, because the gateway stops.
    pub fn close(&mut self) {
        self.holding.close();
    }

    /// Takes in the answer to a question.
    pub fn answer(&mut self, asked: &Ask, answer: &Answer, now: Now) {
        self.holding.answer(asked, answer, now);
    }

    /// Calls of the last minute.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.window.total()
    }

    /// Calls that are left, as far as is known here.
    #[must_use]
    pub fn remaining(&self, now: Now) -> u64 {
        self.holding.remaining(self.window.total(), now)
    }

    /// Whole seconds until the next call comes free, here or at another gateway; 0 while none is taken.
    #[must_use]
    pub fn reset(&self, now: Now) -> u64 {
        let here = self.window.shrinks_below(now.terms.limit);
        // Another gateway gives a slot back a little after it came free.
        let elsewhere = self.holding.next_elsewhere().filter(|at| *at > now.time).map(|at| at + REFRESH);
        let soonest = match (here, elsewhere) {
            (Some(here), Some(elsewhere)) if self.window.total() < now.terms.limit => Some(here.min(elsewhere)),
            (Some(here), _) => Some(here),
            (None, elsewhere) => elsewhere,
        };
        soonest.map_or(0, |at| {
            let wait = at.saturating_sub(now.time);
            wait.as_secs() + u64::from(wait > Duration::from_secs(wait.as_secs()))
        })
    }

    /// Whether no call of the last minute and no slot is left of it.
    pub fn is_idle(&mut self, now: Now) -> bool {
        self.age(now);
        self.window.total() == 0 && self.holding.is_idle()
    }

    fn age(&mut self, now: Now) {
        let over = self.window.age(now.time);
        self.holding.give_back(over, now.redis);
    }
}

#[cfg(test)]
mod tests;
