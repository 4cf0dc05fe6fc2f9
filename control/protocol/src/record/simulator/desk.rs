//! A gateway's lease of the one allowance that all calls of a run count against.

use std::time::Duration;

use super::Bug;
use super::redis::Redis;
use crate::ids::WriterId;
use crate::lease::allowance::Allowance;
use crate::lease::holding::{Now, Verdict};
use crate::lease::{self, DEAD_AFTER, SETTLE};

/// How long the desk may not hear Redis before Redis counts as away.
const LIFETIME: Duration = Duration::from_secs(1);

/// What control publishes of the allowance.
#[derive(Clone, Debug, Default)]
pub(crate) struct Funds {
    /// Calls that it has counted.
    pub(crate) used: u64,
    /// How far it has each log.
    pub(crate) marks: Vec<(WriterId, u64)>,
}

/// The lease, and what was heard of Redis last.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) allowance: Allowance,
    writer: WriterId,
    sequence: u64,
    pub(crate) heard: Option<Duration>,
    age: u64,
    settled: bool,
    gateways: u32,
    /// All words of control that came, any of which a call may still go by.
    words: Vec<Funds>,
}

impl Desk {
    pub(crate) fn new(writer: WriterId, quota: u64) -> Self {
        let mut allowance = Allowance::default();
        allowance.grant(quota);
        let (heard, words) = (None, Vec::new());
        Self { allowance, writer, sequence: 0, heard, age: 0, settled: false, gateways: 1, words }
    }

    /// Beats, hears control, claims again what may be lost, and asks what is due: in time whenever Redis is there.
    pub(crate) fn beat(&mut self, redis: &mut Redis, now: Duration) {
        let Some(heard) = redis.beat(self.writer, millis(now)) else { return };
        let missed = self.heard.is_none_or(|heard| now.saturating_sub(heard) > LIFETIME.min(DEAD_AFTER));
        if missed {
            self.allowance.lapse();
        }
        if let Some(funds) = redis.funds() {
            self.words.push(funds);
            self.hear(self.words.len() - 1);
        }
        let doubtful = !heard.known || missed || heard.age <= self.age;
        (self.heard, self.age) = (Some(now), heard.age);
        self.gateways = u32::try_from(heard.alive.len()).unwrap_or(u32::MAX);
        if doubtful {
            self.settled = false;
            self.ask(0, redis, now, true);
        }
        self.settled = u128::from(heard.age) >= SETTLE.as_millis();
        let at = self.at(now);
        if self.allowance.is_due(at) {
            self.ask(0, redis, now, false);
        }
    }

    /// Lets a call in if the allowance has room for it; it may go by an old word of control.
    pub(crate) fn enter(&mut self, redis: &mut Redis, now: Duration, word: usize) -> bool {
        if !self.words.is_empty() {
            self.hear(word % self.words.len());
        }
        let at = self.at(now);
        let mut verdict = self.allowance.take(at);
        if verdict == Verdict::Ask {
            self.ask(1, redis, now, false);
            let at = self.at(now);
            verdict = self.allowance.take(at);
        }
        verdict == Verdict::Fits
    }

    /// A call ended; with its sequence if it was delivered.
    pub(crate) fn leave(&mut self, delivered: Option<u64>, now: Duration, bug: Option<Bug>) {
        let redis = self.at(now).redis;
        match delivered.filter(|_| bug != Some(Bug::GivesDeliveredBack)) {
            Some(sequence) => self.allowance.deliver(sequence),
            None => self.allowance.give_up(true, redis),
        }
    }

    fn hear(&mut self, word: usize) {
        let Funds { used, marks } = &self.words[word];
        let mark = marks.iter().find(|(writer, _)| *writer == self.writer).map(|(_, mark)| *mark);
        self.allowance.recount(*used, mark);
    }

    fn ask(&mut self, waiting: u64, redis: &mut Redis, now: Duration, surely: bool) {
        self.sequence += 1;
        let at = self.at(now);
        let asked = self.allowance.ask(waiting, at);
        match redis.ask((self.writer, self.sequence, self.gateways), &asked, millis(now), surely) {
            Some((settled, answer)) => {
                self.settled &= settled;
                let at = self.at(now);
                self.allowance.answer(&asked, &answer, at);
            }
            None => self.allowance.unanswered(),
        }
    }

    fn at(&self, now: Duration) -> Now {
        let fresh = self.heard.is_some_and(|heard| now.saturating_sub(heard) < LIFETIME);
        let redis = if fresh && self.settled { lease::Redis::There } else { lease::Redis::Away };
        Now { terms: self.allowance.terms(), time: now, redis, gateways: self.gateways }
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}
