//! Several gateways on one Redis: whatever happens to their questions, limits hold.

use std::time::Duration;

use proptest::prelude::*;
use uuid::Uuid;

use super::claims::{Claims, Heard};
use super::holding::{Now, Verdict};
use super::rate::Rate;
use super::slots::Slots;
use super::*;
use crate::ids::WriterId;

const LIFETIME: Duration = Duration::from_secs(1);

/// What becomes of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Answered,
    /// Redis does what was asked, and the answer is lost.
    AnswerLost,
    /// Redis never hears it.
    Lost,
    /// Redis hears it after later ones.
    Late,
}

#[derive(Clone, Debug)]
enum Step {
    /// Time goes by, and gateways beat and ask what is due; those of the mask are not heard.
    Pass {
        millis: u64,
        silent: u8,
    },
    /// Calls at one gateway; each asks if it must.
    Calls {
        gateway: usize,
        calls: u8,
        fate: Fate,
    },
    /// The oldest call in flight of a gateway ends.
    End {
        gateway: usize,
    },
    Flush,
    /// Redis comes back as it was when time went by last.
    Restart,
    LateArrives,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Pool {
    Rate,
    AtOnce,
}

struct Gateway {
    id: WriterId,
    rate: Rate,
    at_once: Slots,
    sequence: u64,
    heard: Option<u64>,
    age: u64,
    settled: bool,
    alive: u32,
}

struct World {
    claims: Claims<Pool>,
    saved: Claims<Pool>,
    gateways: Vec<Gateway>,
    late: Vec<(Pool, usize, u64, u32, Ask)>,
    limit: u64,
    per_minute: u64,
    /// Milliseconds.
    now: u64,
    admitted: Vec<u64>,
    /// Decisions that needed no question, and all.
    decisions: (u64, u64),
}

impl World {
    fn new(gateways: u128, limit: u64) -> Self {
        let gateway = |number| Gateway {
            id: WriterId(Uuid::from_u128(number)),
            rate: Rate::default(),
            at_once: Slots::default(),
            sequence: 0,
            heard: None,
            age: 0,
            settled: false,
            alive: 1,
        };
        let mut world = Self {
            claims: Claims::default(),
            saved: Claims::default(),
            gateways: (0..gateways).map(gateway).collect(),
            late: Vec::new(),
            limit,
            per_minute: limit,
            now: 1_000_000,
            admitted: Vec::new(),
            decisions: (0, 0),
        };
        for _ in 0..10 {
            world.pass(250, 0);
        }
        world
    }

    fn at(&self, gateway: usize, pool: Pool) -> Now {
        let one = &self.gateways[gateway];
        let fresh = one.heard.is_some_and(|heard| self.now - heard < LIFETIME.as_millis() as u64);
        let linger = if pool == Pool::Rate { Duration::from_secs(61) } else { Duration::ZERO };
        let recheck = Duration::from_millis(250);
        let keen = if pool == Pool::Rate { Duration::from_secs(10) } else { recheck };
        let limit = if pool == Pool::Rate { self.per_minute } else { self.limit };
        Now {
            terms: Terms { limit, linger, recheck, keen, ready: 1, shared: true },
            // Each gateway has a clock of its own.
            time: Duration::from_millis(self.now + 777 * gateway as u64),
            redis: if fresh && one.settled { Redis::There } else { Redis::Away },
            gateways: one.alive,
        }
    }

    fn pass(&mut self, millis: u64, silent: u8) {
        self.now += millis;
        self.saved = self.claims.clone();
        for gateway in 0..self.gateways.len() {
            if silent & (1 << gateway) == 0 {
                self.beat(gateway);
            }
        }
    }

    fn beat(&mut self, gateway: usize) {
        let id = self.gateways[gateway].id;
        let Heard { known, age, alive } = self.claims.beat(id, self.now as i64);
        let one = &mut self.gateways[gateway];
        let missed = one.heard.is_none_or(|heard| self.now - heard > LIFETIME.as_millis() as u64);
        one.alive = alive.len() as u32;
        if missed {
            one.rate.lapse();
            one.at_once.lapse();
        }
        one.heard = Some(self.now);
        let doubtful = !known || missed || age <= one.age;
        one.age = age;
        if doubtful {
            one.settled = false;
            self.ask(gateway, Pool::Rate, 0, Fate::Answered);
            self.ask(gateway, Pool::AtOnce, 0, Fate::Answered);
        }
        self.gateways[gateway].settled = age >= SETTLE.as_millis() as u64;
        let (rate, at_once) = (self.at(gateway, Pool::Rate), self.at(gateway, Pool::AtOnce));
        if self.gateways[gateway].rate.is_due(rate) {
            self.ask(gateway, Pool::Rate, 0, Fate::Answered);
        }
        if self.gateways[gateway].at_once.is_due(at_once) {
            self.ask(gateway, Pool::AtOnce, 0, Fate::Answered);
        }
    }

    fn ask(&mut self, gateway: usize, pool: Pool, waiting: u64, fate: Fate) {
        let now = self.at(gateway, pool);
        let one = &mut self.gateways[gateway];
        one.sequence += 1;
        let asked = match pool {
            Pool::Rate => one.rate.ask(waiting, now),
            Pool::AtOnce => one.at_once.ask(waiting, now),
        };
        let heard =
            |claims: &mut Claims<Pool>| claims.ask(pool, one.id, one.sequence, one.alive, &asked, self.now as i64);
        let answer = match fate {
            Fate::Answered => Some(heard(&mut self.claims)),
            Fate::AnswerLost => {
                heard(&mut self.claims);
                None
            }
            Fate::Lost => None,
            Fate::Late => {
                self.late.push((pool, gateway, one.sequence, one.alive, asked));
                None
            }
        };
        if let Some((settled, _)) = &answer {
            one.settled &= settled;
        }
        let now = self.at(gateway, pool);
        let one = &mut self.gateways[gateway];
        match (pool, answer) {
            (Pool::Rate, Some((_, answer))) => one.rate.answer(&asked, &answer, now),
            (Pool::Rate, None) => one.rate.unanswered(),
            (Pool::AtOnce, Some((_, answer))) => one.at_once.answer(&asked, &answer, now),
            (Pool::AtOnce, None) => one.at_once.unanswered(),
        }
    }

    /// A call that is not let in while Redis is away: what is shown is what holds while it is there.
    fn call(&mut self, gateway: usize, fate: Fate) {
        self.decisions.1 += 1;
        for round in 0..2 {
            let (rate, at_once) = (self.at(gateway, Pool::Rate), self.at(gateway, Pool::AtOnce));
            if rate.redis == Redis::Away {
                return;
            }
            let one = &mut self.gateways[gateway];
            let (per_minute, now) = (one.rate.test(rate), one.at_once.test(at_once));
            self.decisions.0 += u64::from(round == 0 && per_minute != Verdict::Ask && now != Verdict::Ask);
            if (per_minute, now) == (Verdict::Fits, Verdict::Fits) {
                one.rate.take(rate);
                one.at_once.take(at_once);
                return self.admitted.push(self.now);
            }
            if per_minute != Verdict::Fits {
                one.rate.missed(rate);
            }
            if now != Verdict::Fits {
                one.at_once.missed(at_once);
            }
            if per_minute == Verdict::Ask {
                self.ask(gateway, Pool::Rate, 1, fate);
            }
            if now == Verdict::Ask {
                self.ask(gateway, Pool::AtOnce, 1, fate);
            }
            if per_minute == Verdict::Full || now == Verdict::Full {
                return;
            }
        }
    }

    fn end(&mut self, gateway: usize) {
        let now = self.at(gateway, Pool::AtOnce);
        if self.gateways[gateway].at_once.used() > 0 {
            self.gateways[gateway].at_once.release(now);
        }
    }

    fn late_arrives(&mut self) {
        if let Some((pool, gateway, sequence, alive, ask)) = self.late.pop() {
            self.claims.ask(pool, self.gateways[gateway].id, sequence, alive, &ask, self.now as i64);
        }
    }

    /// Calls of the last 60 s, both ends included.
    fn last_minute(&self) -> u64 {
        self.admitted.iter().rev().take_while(|at| **at + 60_000 >= self.now).count() as u64
    }

    fn at_once(&self) -> u64 {
        self.gateways.iter().map(|gateway| gateway.at_once.used()).sum()
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Pass { millis, silent } => self.pass(millis, silent),
            Step::Calls { gateway, calls, fate } => {
                for _ in 0..calls {
                    self.call(gateway % self.gateways.len(), fate);
                }
            }
            Step::End { gateway } => self.end(gateway % self.gateways.len()),
            Step::Flush => self.claims.flush(),
            Step::Restart => {
                self.claims = self.saved.clone();
                self.claims.restart();
                // What was on its way went with the connections.
                self.late.clear();
            }
            Step::LateArrives => self.late_arrives(),
        }
    }
}

fn fates() -> impl Strategy<Value = Fate> {
    prop_oneof![
        6 => Just(Fate::Answered),
        1 => Just(Fate::AnswerLost),
        1 => Just(Fate::Lost),
        1 => Just(Fate::Late),
    ]
}

fn steps(longest: u64, silent: u8) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (1..longest, 0..=silent).prop_map(|(millis, silent)| Step::Pass { millis, silent }),
        6 => (0..4_usize, 1..20_u8, fates()).prop_map(|(gateway, calls, fate)| Step::Calls { gateway, calls, fate }),
        4 => (0..4_usize).prop_map(|gateway| Step::End { gateway }),
        1 => Just(Step::LateArrives),
    ];
    prop::collection::vec(step, 1..200)
}

/// Redis is away from all for some time, or comes back on what it had saved.
fn outages() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (1..30_000_u64).prop_map(|millis| Step::Pass { millis, silent: u8::MAX }),
        2 => Just(Step::Restart),
        1 => Just(Step::Flush),
    ]
}

/// Gateways that come back one after the other, all within the time in which Redis settles.
fn stragglers() -> impl Strategy<Value = Vec<Step>> {
    let back = (1..500_u64, 0..16_u8).prop_map(|(millis, silent)| Step::Pass { millis, silent });
    let calls =
        (0..4_usize, 1..20_u8).prop_map(|(gateway, calls)| Step::Calls { gateway, calls, fate: Fate::Answered });
    prop::collection::vec((back, calls), 0..4)
        .prop_map(|steps| steps.into_iter().flat_map(|(back, calls)| [back, calls]).collect())
}

/// Runs the steps, and shows after each that neither limit is exceeded.
fn limits_hold(world: &mut World, steps: &[Step]) -> Result<(), TestCaseError> {
    for step in steps {
        world.step(step);
        prop_assert!(world.last_minute() <= world.per_minute, "{} in a minute after {step:?}", world.last_minute());
        prop_assert!(world.at_once() <= world.limit, "{} at once after {step:?}", world.at_once());
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_limit_is_exceeded_whatever_becomes_of_questions(
        gateways in 1_u128..5,
        limit in 0_u64..40,
        steps in steps(900, 0),
    ) {
        limits_hold(&mut World::new(gateways, limit), &steps)?;
    }

    #[test]
    fn no_limit_per_minute_is_exceeded_when_gateways_fall_silent_and_come_back(
        limit in 0_u64..40,
        steps in steps(30_000, 15),
    ) {
        let mut world = World::new(4, limit);
        for step in &steps {
            world.step(step);
            prop_assert!(world.last_minute() <= limit, "{} in a minute after {step:?}", world.last_minute());
        }
    }

    #[test]
    fn a_redis_that_lost_everything_gives_out_nothing_twice(
        limit in 0_u64..40,
        before in steps(500, 0),
        after in steps(500, 0),
    ) {
        let mut world = World::new(4, limit);
        limits_hold(&mut world, &before)?;
        world.step(&Step::Flush);
        limits_hold(&mut world, &after)?;
    }

    #[test]
    fn no_limit_is_exceeded_when_redis_was_away_from_all_or_comes_back_on_what_it_had_saved(
        limit in 0_u64..40,
        per_minute in prop_oneof![0_u64..40, Just(10_000)],
        steps in prop::collection::vec((outages(), stragglers(), steps(500, 0)), 1..6),
    ) {
        let mut world = World { per_minute, ..World::new(4, limit) };
        for (outage, stragglers, steps) in steps {
            world.step(&outage);
            limits_hold(&mut world, &stragglers)?;
            limits_hold(&mut world, &steps)?;
        }
    }

    #[test]
    fn what_one_gateway_does_not_use_another_gets_within_seconds(
        limit in 1_u64..200,
        bursts in prop::collection::vec((0..4_usize, 1..50_u8), 0..8),
    ) {
        let mut world = World::new(4, limit);
        for (gateway, calls) in bursts {
            world.step(&Step::Calls { gateway, calls, fate: Fate::Answered });
            world.pass(250, 0);
        }
        for _ in 0..world.at_once() {
            (0..4).for_each(|gateway| world.end(gateway));
        }
        for _ in 0..400 {
            (0..10).for_each(|_| world.call(0, Fate::Answered));
            world.end(0);
            world.pass(250, 0);
        }
        prop_assert!(world.last_minute() + world.limit.div_ceil(100) >= world.limit, "{} of {limit}", world.last_minute());
    }
}

#[test]
fn a_share_is_a_gateways_part_rounded_up() {
    for (limit, gateways, right) in [(0, 4, 0), (1, 4, 1), (100, 4, 25), (101, 4, 26), (100, 1, 100), (100, 0, 100)] {
        assert_eq!(share(limit, gateways), right, "{limit} for {gateways}");
    }
}

#[test]
fn all_gateways_together_keep_half_of_what_is_left_ready_and_a_lone_one_all() {
    assert_eq!([0, 1, 2, 4].map(parts), [1, 1, 4, 8]);
}

#[test]
fn a_redis_that_was_emptied_knows_nobody_and_gives_out_nothing_at_first() {
    let mut claims = Claims::default();
    let (one, another) = (WriterId(Uuid::from_u128(1)), WriterId(Uuid::from_u128(2)));
    let ask = Ask { must: 1, need: 2, spare: 0, limit: 10, base: 0, next: None, linger: 0 };
    claims.beat(one, 0);
    let (settled, answer) = claims.ask(Pool::Rate, one, 1, 1, &ask, 2_000);
    assert_eq!((settled, answer.held, answer.left), (true, 3, 7));
    claims.flush();
    assert!(!claims.beat(one, 2_000).known);
    let (settled, answer) = claims.ask(Pool::Rate, another, 1, 1, &ask, 3_999);
    assert_eq!((settled, answer.held, answer.left), (false, 1, 9));
}

#[test]
fn a_busy_caller_is_let_in_without_questions() {
    let mut world = World::new(4, 6_000);
    for turn in 0..600 {
        for gateway in 0..4 {
            for _ in 0..2 {
                world.call(gateway, Fate::Answered);
                world.end(gateway);
            }
        }
        world.pass(100, 0);
        assert!(world.last_minute() <= 6_000, "turn {turn}");
    }
    let (local, all) = world.decisions;
    assert!(local * 100 >= all * 99, "{local} of {all}");
}

/// Bursts every five seconds, one gateway after the other, so many times above the limit: the part of decisions that
/// needed no question, and the calls let in during the last minute.
fn bursts(limit: u64, times: u64) -> (f64, u64) {
    let mut world = World::new(4, limit);
    let calls = (limit * times * 5).div_ceil(60 * 4);
    for turn in 0..720_usize {
        if turn % 5 == 0 {
            for _ in 0..calls {
                world.call(turn / 5 % 4, Fate::Answered);
                world.end(turn / 5 % 4);
            }
        }
        world.pass(250, 0);
        assert!(world.last_minute() <= limit, "turn {turn}");
    }
    let (local, all) = world.decisions;
    (local as f64 / all as f64, world.last_minute())
}

#[test]
fn bursts_far_above_a_limit_are_decided_without_questions_and_get_all_of_it() {
    for (limit, times) in [(60, 60), (300, 20), (1200, 5)] {
        let (local, let_in) = bursts(limit, times);
        assert!(local >= 0.99, "{limit} a minute: {local}");
        assert!(let_in * 100 >= limit * 98, "{let_in} of {limit} a minute were let in");
    }
}

#[test]
fn the_slots_of_a_dead_gateway_come_back_when_it_is_not_heard_any_more() {
    let mut world = World::new(2, 3);
    (0..3).for_each(|_| world.call(0, Fate::Answered));
    world.call(1, Fate::Answered);
    assert_eq!(world.admitted.len(), 3);
    for _ in 0..8 {
        world.pass(500, 1);
    }
    let now = world.at(1, Pool::AtOnce);
    world.gateways[1].at_once.missed(now);
    world.ask(1, Pool::AtOnce, 1, Fate::Answered);
    assert_eq!(world.gateways[1].at_once.test(world.at(1, Pool::AtOnce)), Verdict::Fits);
    let now = world.at(1, Pool::Rate);
    world.gateways[1].rate.missed(now);
    world.ask(1, Pool::Rate, 1, Fate::Answered);
    let now = world.at(1, Pool::Rate);
    assert_eq!(world.gateways[1].rate.test(now), Verdict::Full, "its calls count for a minute");
    for _ in 0..130 {
        world.pass(500, 1);
    }
    world.call(1, Fate::Answered);
    assert_eq!(world.admitted.len(), 4);
}

#[test]
fn what_a_gateway_kept_ready_is_gone_when_it_was_not_heard_for_long() {
    let mut world = World::new(2, 20);
    for _ in 0..4 {
        (0..2).for_each(|_| world.call(0, Fate::Answered));
        (0..2).for_each(|_| world.end(0));
        world.pass(100, 0);
    }
    assert!(world.gateways[0].rate.holding().free() > 0);
    (0..160).for_each(|_| world.pass(500, 1));
    (0..30).for_each(|_| world.call(1, Fate::Answered));
    assert_eq!(world.last_minute(), 20);
    world.pass(100, 0);
    (0..30).for_each(|_| world.call(0, Fate::Answered));
    assert_eq!(world.last_minute(), 20);
}

#[test]
fn without_redis_a_lease_is_spent_once_and_then_the_share() {
    let mut world = World::new(4, 40);
    for _ in 0..8 {
        (0..5).for_each(|_| world.call(0, Fate::Answered));
        (0..5).for_each(|_| world.end(0));
        world.pass(100, 0);
    }
    let ready = world.gateways[0].at_once.holding().free();
    world.now += 2_000;
    let now = world.at(0, Pool::AtOnce);
    assert_eq!(now.redis, Redis::Away);
    let slots = &mut world.gateways[0].at_once;
    let mut let_in = 0;
    while slots.test(now) == Verdict::Fits {
        slots.take(now);
        let_in += 1;
    }
    assert_eq!(let_in, ready.max(10));
    (0..let_in).for_each(|_| slots.release(now));
    let again = (0..100).take_while(|_| {
        let fits = slots.test(now) == Verdict::Fits;
        slots.take(now);
        fits
    });
    assert_eq!(again.count(), 10);
    let strict = Now { terms: Terms { shared: false, ..now.terms }, ..now };
    assert_eq!(Slots::default().test(strict), Verdict::Unknown);
}
