//! A daily allowance: a call uses its slot until control has counted it, and from then on the slot is used for good.

use std::collections::BTreeSet;
use std::time::Duration;

use super::holding::{Holding, Now, Verdict};
use super::{Answer, Ask, Redis, Terms};

/// How long the calls of a gateway that is gone count: its log is adopted and counted meanwhile.
pub const LINGER: Duration = Duration::from_hours(1);
/// How long an allowance is believed to be used up without asking again.
const RECHECK: Duration = Duration::from_secs(1);
/// Seconds of the busiest second's calls that are kept ready, for when Redis is away; at times it is half of them.
const READY: u32 = 60;

/// What one gateway knows of an allowance, and the slots for more calls.
#[derive(Clone, Debug, Default)]
pub struct Allowance {
    quota: u64,
    in_flight: u64,
    /// Sequences in this gateway's log of delivered calls that control has not counted, as far as is known.
    delivered: BTreeSet<u64>,
    /// Calls that control has counted, of all gateways.
    counted: u64,
    holding: Holding,
}

impl Allowance {
    /// It is of so many calls from now on.
    pub fn grant(&mut self, quota: u64) {
        self.quota = quota;
    }

    /// Takes over what control has counted: `used` calls in all, and of this gateway's log everything up to `mark`.
    /// A word that is older than one heard before changes nothing.
    pub fn recount(&mut self, used: u64, mark: Option<u64>) {
        if let Some(next) = mark.and_then(|mark| mark.checked_add(1)) {
            self.delivered = self.delivered.split_off(&next);
        }
        self.counted = self.counted.max(used);
    }

    /// The rules: what control has counted belongs to nobody, and an allowance has no share.
    #[must_use]
    pub fn terms(&self) -> Terms {
        let limit = self.quota.saturating_sub(self.counted);
        Terms { limit, linger: LINGER, recheck: RECHECK, keen: RECHECK, ready: READY, shared: false }
    }

    /// Takes a slot for a call if one is here, or notes that there was none.
    pub fn take(&mut self, now: Now) -> Verdict {
        let verdict = self.holding.test(self.used(), now);
        match verdict {
            Verdict::Fits => {
                self.holding.take(now);
                self.in_flight += 1;
            }
            Verdict::Full | Verdict::Ask | Verdict::Unknown => self.holding.missed(now),
        }
        verdict
    }

    /// Counts a call that is paid for, beyond the allowance.
    pub fn pay(&mut self) {
        self.in_flight += 1;
    }

    /// A call in flight was delivered; `sequence` is its place in the log. Its slot is used up.
    pub fn deliver(&mut self, sequence: u64) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.delivered.insert(sequence);
        // Beyond the allowance only "all of it" counts. Confirmation goes upwards, so that as long as one of the
        // oldest were unconfirmed, all of the newest are, and these alone fill the allowance.
        while self.delivered.len() as u64 > self.quota.max(1) {
            self.delivered.pop_first();
        }
    }

    /// A call in flight came to nothing; one that has taken a slot gives it back.
    pub fn give_up(&mut self, is_slot: bool, redis: Redis) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if is_slot {
            self.holding.give_back(1, redis);
        }
    }

    /// Whether a question should be sent although no call waits for it.
    pub fn is_due(&mut self, now: Now) -> bool {
        self.holding.is_due(self.used(), now)
    }

    /// The question to send.
    #[must_use]
    pub fn ask(&mut self, waiting: u64, now: Now) -> Ask {
        self.holding.ask(self.used(), self.counted, waiting, None, now)
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

    /// Calls in flight, and delivered ones that control has not counted.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.delivered.len() as u64 + self.in_flight
    }

    /// Calls in flight.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// Whether control has not counted all calls that were delivered.
    #[must_use]
    pub fn is_ahead(&self) -> bool {
        !self.delivered.is_empty()
    }

    /// Whether so few calls are left that each that counts twice is missed.
    #[must_use]
    pub fn is_scarce(&self) -> bool {
        self.holding.left() < self.quota / 2
    }

    /// The slots for more calls.
    #[must_use]
    pub fn holding(&self) -> &Holding {
        &self.holding
    }

    /// Whether no call is in flight or uncounted and no slot is left of it.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.used() == 0 && self.holding.is_idle()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(allowance: &Allowance) -> Now {
        Now { terms: allowance.terms(), time: Duration::ZERO, redis: Redis::There, gateways: 1 }
    }

    /// One of so many calls, all of them ready here.
    fn allowance(quota: u64) -> Allowance {
        let mut allowance = Allowance::default();
        allowance.grant(quota);
        let asked = allowance.ask(quota, now(&allowance));
        allowance.answer(&asked, &Answer { held: quota, left: 0, next: None }, now(&allowance));
        allowance
    }

    #[test]
    fn a_delivered_call_counts_once_before_and_after_control_has_counted_it() {
        let mut allowance = allowance(3);
        for sequence in 1..=3 {
            assert_eq!(allowance.take(now(&allowance)), Verdict::Fits);
            allowance.deliver(sequence);
        }
        assert_eq!((allowance.used(), allowance.in_flight(), allowance.is_ahead()), (3, 0, true));
        assert_eq!(allowance.take(now(&allowance)), Verdict::Full);
        allowance.recount(2, Some(2));
        assert_eq!((allowance.used(), allowance.terms().limit), (1, 1));
        assert_eq!(allowance.take(now(&allowance)), Verdict::Full);
        allowance.recount(3, Some(3));
        assert_eq!((allowance.used(), allowance.terms().limit, allowance.is_ahead()), (0, 0, false));
        assert_eq!(allowance.take(now(&allowance)), Verdict::Full);
    }

    #[test]
    fn an_older_word_of_control_takes_nothing_back() {
        let mut allowance = allowance(5);
        for sequence in 1..=4 {
            allowance.take(now(&allowance));
            allowance.deliver(sequence);
        }
        allowance.recount(4, Some(4));
        allowance.recount(1, Some(1));
        allowance.recount(0, None);
        assert_eq!((allowance.used(), allowance.terms().limit), (0, 1));
    }

    #[test]
    fn a_call_that_came_to_nothing_gives_its_slot_back_and_one_that_was_paid_for_has_none() {
        let mut allowance = allowance(1);
        assert_eq!(allowance.take(now(&allowance)), Verdict::Fits);
        assert_eq!(allowance.take(now(&allowance)), Verdict::Full);
        allowance.pay();
        assert_eq!(allowance.in_flight(), 2);
        allowance.give_up(false, Redis::There);
        assert_eq!((allowance.in_flight(), allowance.holding().free()), (1, 0));
        allowance.give_up(true, Redis::There);
        assert_eq!((allowance.in_flight(), allowance.holding().free()), (0, 1));
        assert_eq!(allowance.take(now(&allowance)), Verdict::Fits);
    }

    #[test]
    fn of_more_calls_than_it_has_the_newest_are_remembered() {
        let mut allowance = allowance(2);
        for sequence in 1..=5 {
            allowance.pay();
            allowance.deliver(sequence);
        }
        assert_eq!(allowance.used(), 2);
        allowance.recount(0, Some(3));
        assert_eq!(allowance.used(), 2);
        allowance.recount(0, Some(4));
        assert_eq!(allowance.used(), 1);
    }
}
