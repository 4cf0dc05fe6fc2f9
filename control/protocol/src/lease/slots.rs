//! A limit of calls at once: a call uses its slot until it ends.

use super::holding::{Holding, Now, Verdict};
use super::{Answer, Ask};

/// The calls in flight, and the slots for more.
#[derive(Clone, Debug, Default)]
pub struct Slots {
    used: u64,
    holding: Holding,
}

impl Slots {
    /// Whether one more call fits now.
    #[must_use]
    pub fn test(&self, now: Now) -> Verdict {
        self.holding.test(self.used, now)
    }

    /// Counts a call that fits.
    pub fn take(&mut self, now: Now) {
        self.holding.take(now);
        self.used += 1;
    }

    /// Notes a call for which there was no slot here.
    pub fn missed(&mut self, now: Now) {
        self.holding.missed(now);
    }

    /// A call ended.
    pub fn release(&mut self, now: Now) {
        self.used = self.used.saturating_sub(1);
        self.holding.give_back(1, now.redis);
    }

    /// Whether a question should be sent although no call waits for it.
    pub fn is_due(&mut self, now: Now) -> bool {
        self.holding.is_due(self.used, now)
    }

    /// The question to send.
    #[must_use]
    pub fn ask(&mut self, waiting: u64, now: Now) -> Ask {
        self.holding.ask(self.used, 0, waiting, None, now)
    }

    /// Takes in the answer to a question.
    pub fn answer(&mut self, asked: &Ask, answer: &Answer, now: Now) {
        self.holding.answer(asked, answer, now);
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

    /// Calls in flight.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used
    }

    /// The slots for more calls.
    #[must_use]
    pub fn holding(&self) -> &Holding {
        &self.holding
    }

    /// Whether no call is in flight and no slot is left of it.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.used == 0 && self.holding.is_idle()
    }
}
