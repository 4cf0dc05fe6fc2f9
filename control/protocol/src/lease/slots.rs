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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::lease::{Redis, Terms};

    /// Two calls at once.
    fn now(redis: Redis) -> Now {
        let recheck = Duration::from_millis(250);
        let terms = Terms { limit: 2, linger: Duration::ZERO, recheck, keen: recheck, ready: 1, shared: true };
        Now { terms, time: Duration::ZERO, redis, gateways: 1 }
    }

    #[test]
    fn a_call_uses_its_slot_until_it_ends() {
        let mut slots = Slots::default();
        slots.take(now(Redis::Away));
        slots.take(now(Redis::Away));
        assert_eq!((slots.used(), slots.test(now(Redis::Away))), (2, Verdict::Full));
        slots.release(now(Redis::Away));
        assert_eq!((slots.used(), slots.test(now(Redis::Away)), slots.holding().free()), (1, Verdict::Fits, 0));
        slots.release(now(Redis::There));
        assert_eq!((slots.used(), slots.holding().free()), (0, 1), "another call may have it");
    }

    #[test]
    fn a_question_is_due_for_a_call_that_redis_does_not_know_and_again_if_it_was_not_answered() {
        let there = now(Redis::There);
        let mut slots = Slots::default();
        slots.take(there);
        assert!(slots.is_due(there));
        assert!(!slots.is_due(there));
        slots.unanswered();
        assert!(slots.is_due(there));
        let asked = slots.ask(1, there);
        assert_eq!((asked.must, asked.need), (1, 1));
        slots.answer(&asked, &Answer { held: 2, left: 0, next: None }, there);
        assert!(!slots.is_due(there));
        assert_eq!(slots.holding().free(), 1);
    }

    #[test]
    fn it_is_idle_once_no_call_is_in_flight_and_nothing_is_held() {
        let there = now(Redis::There);
        let mut slots = Slots::default();
        assert!(slots.is_idle());
        slots.take(there);
        assert!(!slots.is_idle());
        let asked = slots.ask(0, there);
        slots.answer(&asked, &Answer { held: 1, left: 1, next: None }, there);
        slots.release(there);
        assert!(!slots.is_idle(), "redis does not know yet that it is free");
        slots.close();
        let asked = slots.ask(0, there);
        slots.answer(&asked, &Answer { held: 0, left: 2, next: None }, there);
        assert!(slots.is_idle());
    }
}
