//! Chutes under load in virtual time: an instance that turns slow, one that dies, all that die.
#![expect(clippy::print_stdout, reason = "the figures are what these tests are for")]

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use uuid::Uuid;

use super::tests::{instances, with};
use super::*;

const RULE: Rule = Rule { open: Duration::from_secs(2), longest: Duration::from_secs(60) };
const CHUTE: ChuteId = ChuteId(Uuid::nil());
const PLACES: u32 = 32;
/// How often the flow of a stream is measured.
const FLOW: Duration = Duration::from_millis(500);
/// Until a dead instance is noticed.
const REFUSED: Duration = Duration::from_millis(1);

/// What the instances are like at a moment: how many times slower, or dead.
type Weather = fn(usize, Duration) -> Option<f64>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrive,
    First(usize),
    Flow(usize),
    End(usize),
    Fail(usize),
}

#[derive(Debug)]
struct Call {
    tokens: u64,
    /// Time of one chunk on a healthy instance, and how many come.
    chunk: f64,
    chunks: f64,
    place: Option<Reservation>,
    begun: Duration,
    flowing: Option<Duration>,
    tried: Vec<InstanceId>,
}

/// One attempt as it was placed.
struct Placed {
    at: Duration,
    instance: InstanceId,
}

struct World {
    all: Vec<InstanceId>,
    balance: Balance,
    weather: Weather,
    per_second: f64,
    random: StdRng,
    now: Duration,
    events: BinaryHeap<Reverse<(Duration, Event)>>,
    calls: BTreeMap<usize, Call>,
    placed: Vec<Placed>,
    /// Failed attempts before the first piece, by call.
    failed: BTreeMap<usize, u32>,
    /// When calls found no place or no further instance.
    refused: Vec<Duration>,
    answered: Vec<Duration>,
    number: usize,
}

impl World {
    fn new(instances_count: u128, per_second: f64, weather: Weather) -> Self {
        Self {
            all: instances(instances_count),
            balance: Balance::new(RULE),
            weather,
            per_second,
            random: StdRng::seed_from_u64(3),
            now: Duration::ZERO,
            events: BinaryHeap::from([Reverse((Duration::ZERO, Event::Arrive))]),
            calls: BTreeMap::new(),
            placed: Vec::new(),
            failed: BTreeMap::new(),
            refused: Vec::new(),
            answered: Vec::new(),
            number: 0,
        }
    }

    fn run(mut self, until: u64) -> Self {
        while let Some(Reverse((at, event))) = self.events.pop() {
            if at > Duration::from_secs(until) {
                break;
            }
            self.now = at;
            match event {
                Event::Arrive => self.arrive(),
                Event::First(call) => self.first(call),
                Event::Flow(call) => self.flow(call),
                Event::End(call) => self.end(call, Outcome::Works),
                Event::Fail(call) => self.fail(call),
            }
        }
        self
    }

    fn arrive(&mut self) {
        let wait = -self.random.random_range(1e-9_f64..1.0).ln() / self.per_second;
        self.after(wait, Event::Arrive);
        self.number += 1;
        let call = Call {
            tokens: self.random.random_range(3.0_f64..11.0).exp() as u64,
            chunk: 0.01 * self.scatter(),
            chunks: self.random.random_range(10.0..150.0),
            place: None,
            begun: self.now,
            flowing: None,
            tried: Vec::new(),
        };
        self.calls.insert(self.number, call);
        self.place(self.number);
    }

    fn place(&mut self, number: usize) {
        let random = self.random.random();
        let call = self.calls.get_mut(&number).unwrap();
        let pick = self.balance.pick(&with(PLACES, &self.all), &call.tried, self.now, random);
        let Pick::Chosen { reservation, .. } = pick else {
            self.calls.remove(&number);
            return self.refused.push(self.now);
        };
        let instance = reservation.instance();
        (call.begun, call.place) = (self.now, Some(reservation));
        self.placed.push(Placed { at: self.now, instance });
        let prefill = (0.05 + call.tokens as f64 * 2e-5) * self.scatter();
        match self.speed(instance) {
            Some(times) => self.after(prefill * times, Event::First(number)),
            None => self.after(REFUSED.as_secs_f64(), Event::Fail(number)),
        }
    }

    fn first(&mut self, number: usize) {
        let Some(instance) = self.instance(number) else { return };
        let Some(times) = self.speed(instance) else { return self.fail(number) };
        self.answered.push(self.now);
        let call = self.calls.get_mut(&number).unwrap();
        let (work, took) = (Work::Prefill { tokens: call.tokens }, self.now - call.begun);
        self.balance.measured(CHUTE, instance, work, took, self.now);
        self.balance.answered(call.place.as_ref().unwrap(), self.now);
        call.flowing = Some(self.now);
        let rest = call.chunk * call.chunks * times;
        self.after(FLOW.as_secs_f64(), Event::Flow(number));
        self.after(rest, Event::End(number));
    }

    fn flow(&mut self, number: usize) {
        let Some(instance) = self.instance(number) else { return };
        let Some(times) = self.speed(instance) else { return self.fail(number) };
        let took = Duration::from_secs_f64(self.calls[&number].chunk * times);
        self.balance.measured(CHUTE, instance, Work::Chunk, took, self.now);
        self.after(FLOW.as_secs_f64(), Event::Flow(number));
    }

    fn fail(&mut self, number: usize) {
        let Some(instance) = self.instance(number) else { return };
        if self.calls[&number].flowing.is_some() {
            return self.end(number, Outcome::Fails);
        }
        let random = self.random.random();
        let call = self.calls.get_mut(&number).unwrap();
        call.tried.push(instance);
        let place = call.place.take().unwrap();
        self.balance.release(place, Outcome::Fails, self.now, random);
        *self.failed.entry(number).or_default() += 1;
        self.place(number);
    }

    fn end(&mut self, number: usize, outcome: Outcome) {
        let Some(instance) = self.instance(number) else { return };
        let outcome = if self.speed(instance).is_none() { Outcome::Fails } else { outcome };
        let place = self.calls.remove(&number).unwrap().place.unwrap();
        self.balance.release(place, outcome, self.now, self.random.random());
    }

    fn instance(&self, number: usize) -> Option<InstanceId> {
        Some(self.calls.get(&number)?.place.as_ref()?.instance())
    }

    fn speed(&self, instance: InstanceId) -> Option<f64> {
        (self.weather)(self.all.iter().position(|one| *one == instance).unwrap(), self.now)
    }

    fn after(&mut self, seconds: f64, event: Event) {
        self.events.push(Reverse((self.now + Duration::from_secs_f64(seconds), event)));
    }

    /// A factor that scatters around one, as times of real engines do.
    fn scatter(&mut self) -> f64 {
        let normal: f64 = (0..12).map(|_| self.random.random_range(-0.5..0.5)).sum();
        (normal * 0.3).exp()
    }

    /// The part of the attempts that one instance got between two moments, as a multiple of its fair part.
    fn share(&self, instance: usize, from: f64, until: f64) -> f64 {
        let between = Duration::from_secs_f64(from)..Duration::from_secs_f64(until);
        let all = self.placed.iter().filter(|placed| between.contains(&placed.at));
        let its = all.clone().filter(|placed| placed.instance == self.all[instance]).count();
        its as f64 * self.all.len() as f64 / all.count() as f64
    }
}

fn seventh_is_slow_for_a_while(instance: usize, now: Duration) -> Option<f64> {
    let slow = instance == 7 && (20..60).contains(&now.as_secs());
    Some(if slow { 3.0 } else { 1.0 })
}

#[test]
fn a_three_times_slower_instance_loses_half_its_share_within_two_seconds_and_earns_it_back() {
    for per_second in [100.0, 300.0] {
        let world = World::new(20, per_second, seventh_is_slow_for_a_while).run(90);
        let [before, soon, later, well] =
            [(5.0, 20.0), (22.0, 24.0), (24.0, 60.0), (75.0, 90.0)].map(|(from, until)| world.share(7, from, until));
        println!("{per_second} calls/s: {before:.2} → {soon:.2}, {later:.2} → {well:.2} of a fair share");
        assert!((0.8..1.2).contains(&before), "{before}");
        assert!(soon <= before / 2.0 && later <= before / 2.0, "{soon} {later} of {before}");
        assert!(later > 0.02, "it is never starved: {later}");
        assert!(well > 0.8, "{well}");
        assert!(world.refused.is_empty() && world.failed.is_empty());
    }
}

fn seventh_is_dead_for_a_while(instance: usize, now: Duration) -> Option<f64> {
    (instance != 7 || !(20..60).contains(&now.as_secs())).then_some(1.0)
}

#[test]
fn one_dead_instance_of_twenty_costs_each_call_at_most_one_attempt_and_gets_only_trials() {
    let world = World::new(20, 300.0, seventh_is_dead_for_a_while).run(130);
    let most = world.failed.values().max().unwrap();
    let dead = Duration::from_secs(21)..Duration::from_secs(60);
    let tries =
        world.placed.iter().filter(|placed| placed.instance == world.all[7] && dead.contains(&placed.at)).count();
    let well = world.share(7, 125.0, 130.0);
    println!("{} failed attempts, {most} per call, {tries} trials in 39 s, then {well:.2}", world.failed.len());
    assert_eq!((*most, world.refused.len()), (1, 0));
    assert!(tries <= 6, "{tries} calls went to a dead instance");
    assert!((0.8..1.2).contains(&well), "{well}");
}

fn all_are_dead_for_a_while(_: usize, now: Duration) -> Option<f64> {
    (!(20..50).contains(&now.as_secs())).then_some(1.0)
}

#[test]
fn a_chute_whose_instances_all_died_serves_as_soon_as_they_are_back() {
    let world = World::new(3, 20.0, all_are_dead_for_a_while).run(60);
    let back = Duration::from_secs(50);
    let first = world.answered.iter().find(|at| **at > back).unwrap();
    let last_refused = world.refused.iter().max().unwrap();
    println!("answered {:?} after, refused until {last_refused:?}", *first - back);
    assert!(*first - back < Duration::from_secs(1), "{first:?}");
    assert!(*last_refused < back + Duration::from_millis(500), "{last_refused:?}");
}
