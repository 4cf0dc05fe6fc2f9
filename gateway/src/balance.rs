//! Chooses the instance of a chute that a call goes to, from what this process sees of all of them.
//!
//! The rule, in its order:
//! 1. Only instances that have a place and were not tried in this call.
//! 2. Those whose breaker is closed before those that failed within the last second, and these before those whose
//!    breaker is open: such a last resort takes one call at a time, and one more where that takes long, so that a chute
//!    never stands still while one of its instances may answer. An instance whose time open is over gets one call as its trial, never one that has already
//!    failed elsewhere while there is a better place.
//! 3. The fewest calls in flight, of all gateways, times how much slower than its peers the instance is. A slow one
//!    still gets half of what its speed earns, however few calls there are: it must be able to show that it is well.

mod breaker;
mod speed;

use std::collections::HashMap;
use std::time::Duration;

use ahash::RandomState;
use protocol::ids::{ChuteId, InstanceId};

pub use self::breaker::Rule;
use self::breaker::{Breaker, Rank, Standing, Trial};
pub use self::speed::Work;
use self::speed::{Speed, Typical, Usual};

/// What this process knows of the instances of all chutes.
///
/// Memory is bounded by calls in flight and, with [`Balance::keep`], by the directory. Times are durations since any
/// fixed moment.
#[derive(Debug)]
pub struct Balance {
    rule: Rule,
    instances: HashMap<InstanceId, Known, RandomState>,
    usual: HashMap<ChuteId, Usual, RandomState>,
    openings: u64,
    /// Room for the views and numbers of one pick.
    room: (Vec<View>, Vec<f32>),
}

/// One instance as this process sees it.
#[derive(Clone, Copy, Debug)]
struct Known {
    outstanding: u32,
    breaker: Breaker,
    speed: Speed,
    /// How many times slower than its peers it is, as of the last pick.
    slowness: f64,
    /// The part of a call that it has coming although it is slow.
    owed: f64,
}

/// A candidate in one pick.
#[derive(Clone, Copy, Debug)]
struct View {
    instance: InstanceId,
    calls: u32,
    speed: Speed,
    /// None if it takes no call.
    rank: Option<Rank>,
    /// Whether it takes none because its breaker is open.
    is_open: bool,
    was_tried: bool,
    /// How long it stays open yet.
    remaining: Duration,
    slowness: f64,
    /// The less the better.
    score: f64,
}

/// An instance that a call may go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Which.
    pub instance: InstanceId,
    /// Calls that this process may have there at once, as things stand.
    pub places: u32,
    /// Calls that other gateways have there, as far as known.
    pub elsewhere: u32,
}

/// A place on an instance; given back once, by [`Balance::release`].
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a reservation that is not released blocks a place for good"]
pub struct Reservation {
    instance: InstanceId,
    trial: Option<Trial>,
}

/// What a pick gives.
#[derive(Debug, PartialEq)]
pub enum Pick {
    /// A place.
    Chosen {
        /// Where; already counted.
        reservation: Reservation,
        /// Mean calls in flight over the candidates, of all gateways as far as known, this one not counted.
        mean_connections: f64,
    },
    /// Those left have no place.
    AllBusy,
    /// Those left are open, and each has its one call.
    AllOpen,
    /// None is left.
    None,
}

/// What a call showed of its instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It answers.
    Works,
    /// It answers that it has no place for the call.
    Full,
    /// It does not answer as it should.
    Fails,
    /// None of these: the client left first, or the fault may be elsewhere.
    Unknown,
}

/// How many instances are in which state, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Others are preferred to them after a failure.
    pub averted: usize,
    /// Their breaker is open.
    pub open: usize,
    /// Their trial is due or under way.
    pub half_open: usize,
    /// They are slower than their peers.
    pub slow: usize,
    /// Breakers that opened since the start.
    pub openings: u64,
}

impl Reservation {
    /// The instance.
    #[must_use]
    pub fn instance(&self) -> InstanceId {
        self.instance
    }
}

impl Default for Known {
    fn default() -> Self {
        Self { outstanding: 0, breaker: Breaker::default(), speed: Speed::default(), slowness: 1.0, owed: 0.0 }
    }
}

impl Balance {
    /// One that knows nothing yet.
    #[must_use]
    pub fn new(rule: Rule) -> Self {
        Self { rule, instances: HashMap::default(), usual: HashMap::default(), openings: 0, room: Default::default() }
    }

    /// Chooses among the candidates not tried yet and takes the place in the same step. `random` breaks ties.
    pub fn pick(&mut self, candidates: &[Candidate], tried: &[InstanceId], now: Duration, random: u64) -> Pick {
        let (mut views, mut numbers) = std::mem::take(&mut self.room);
        views.clear();
        views.extend(candidates.iter().map(|candidate| self.view(candidate, tried, now)));
        let typical = Typical::of(views.iter().map(|view| &view.speed), now, &mut numbers);
        for view in &mut views {
            self.score(view, typical, now);
        }
        let earned = if tried.is_empty() { self.earned(&views) } else { None };
        let pick = match earned.or_else(|| best(&views, random)) {
            Some(instance) => {
                let calls: u64 = views.iter().map(|view| u64::from(view.calls)).sum();
                let mean_connections = calls as f64 / views.len().max(1) as f64;
                Pick::Chosen { reservation: self.reserve(instance, now), mean_connections }
            }
            None if views.iter().all(|view| view.was_tried) => Pick::None,
            None if views.iter().all(|view| view.was_tried || view.is_open) => Pick::AllOpen,
            None => Pick::AllBusy,
        };
        self.room = (views, numbers);
        pick
    }

    /// Notes that the instance has begun to answer, before the call is over.
    pub fn answered(&mut self, reservation: &Reservation, now: Duration) {
        if let Some(known) = self.instances.get_mut(&reservation.instance) {
            known.breaker.answered(reservation.trial, now);
        }
    }

    /// Notes how long an instance took for some work.
    pub fn measured(&mut self, chute: ChuteId, instance: InstanceId, work: Work, took: Duration, now: Duration) {
        let Some(excess) = self.usual.entry(chute).or_default().excess(work, took) else { return };
        if let Some(known) = self.instances.get_mut(&instance) {
            known.speed.note(work, excess, now);
        }
    }

    /// Notes a failure that showed only after its call was over; `random` sets the time open.
    pub fn failed(&mut self, instance: InstanceId, now: Duration, random: u64) {
        let known = self.instances.entry(instance).or_default();
        self.openings += u64::from(known.breaker.failed(None, self.rule, now, fraction(random)));
    }

    /// Gives the place back with what the call showed; `random` sets the time open after a failure.
    pub fn release(&mut self, reservation: Reservation, outcome: Outcome, now: Duration, random: u64) {
        let Some(known) = self.instances.get_mut(&reservation.instance) else { return };
        known.outstanding = known.outstanding.saturating_sub(1);
        match outcome {
            Outcome::Works => known.breaker.works(reservation.trial, now),
            Outcome::Full => known.breaker.full(reservation.trial, now),
            Outcome::Unknown => known.breaker.unknown(reservation.trial),
            Outcome::Fails => {
                let opened = known.breaker.failed(reservation.trial, self.rule, now, fraction(random));
                self.openings += u64::from(opened);
            }
        }
    }

    /// Forgets instances and chutes that are gone; calls in flight are counted until they are released.
    pub fn keep(&mut self, is_instance: impl Fn(InstanceId) -> bool, is_chute: impl Fn(ChuteId) -> bool) {
        self.instances.retain(|instance, known| known.outstanding > 0 || is_instance(*instance));
        self.usual.retain(|chute, _| is_chute(*chute));
    }

    /// How many instances are in which state.
    #[must_use]
    pub fn census(&self, now: Duration) -> Census {
        let mut census = Census { openings: self.openings, ..Census::default() };
        for known in self.instances.values() {
            match known.breaker.standing(now) {
                Standing::Closed => {}
                Standing::Averted => census.averted += 1,
                Standing::Open => census.open += 1,
                Standing::HalfOpen => census.half_open += 1,
            }
            census.slow += usize::from(known.slowness > 1.0 && known.speed.is_known(now));
        }
        census
    }

    fn view(&self, candidate: &Candidate, tried: &[InstanceId], now: Duration) -> View {
        let instance = candidate.instance;
        let known = self.instances.get(&instance).copied().unwrap_or_default();
        let was_tried = tried.contains(&instance);
        let rank = known.breaker.rank(tried.is_empty(), now);
        let is_free = !was_tried && known.outstanding < candidate.places;
        View {
            instance,
            calls: known.outstanding.saturating_add(candidate.elsewhere),
            speed: known.speed,
            rank: rank.filter(|_| is_free),
            is_open: matches!(rank, Some(Rank::LastResort) | None),
            was_tried,
            remaining: known.breaker.remaining(now),
            slowness: known.slowness,
            score: 0.0,
        }
    }

    /// Sets what a candidate is worth and remembers how slow it is.
    fn score(&mut self, view: &mut View, typical: Typical, now: Duration) {
        let slowness = view.speed.slowness(typical, now);
        if slowness.total_cmp(&view.slowness).is_ne() {
            view.slowness = slowness;
            if let Some(known) = self.instances.get_mut(&view.instance) {
                known.slowness = slowness;
            }
        }
        view.score = match view.rank {
            Some(Rank::LastResort) => view.remaining.as_secs_f64(),
            Some(Rank::Good | Rank::Averted) | None => (f64::from(view.calls) + 1.0) * slowness,
        };
    }

    /// A slow instance that has not had what its speed earns.
    fn earned(&mut self, views: &[View]) -> Option<InstanceId> {
        let good = views.iter().filter(|view| view.rank == Some(Rank::Good));
        let fair = 1.0 / good.clone().count().max(1) as f64;
        for view in good.filter(|view| view.slowness > 1.0) {
            let Some(known) = self.instances.get_mut(&view.instance) else { continue };
            known.owed = (known.owed + fair / (2.0 * view.slowness)).min(1.0);
            if known.owed >= 1.0 {
                return Some(view.instance);
            }
        }
        None
    }

    fn reserve(&mut self, instance: InstanceId, now: Duration) -> Reservation {
        let known = self.instances.entry(instance).or_default();
        known.outstanding += 1;
        known.owed = 0.0;
        Reservation { instance, trial: known.breaker.begin(now) }
    }
}

/// The best candidate; `random` says which of several.
fn best(views: &[View], random: u64) -> Option<InstanceId> {
    let order = |view: &&View| (view.rank.unwrap_or(Rank::LastResort), view.score);
    let free = || views.iter().filter(|view| view.rank.is_some());
    let (rank, score) = free()
        .map(|view| order(&view))
        .min_by(|left, right| left.0.cmp(&right.0).then_with(|| left.1.total_cmp(&right.1)))?;
    let ties = || free().filter(|view| view.rank == Some(rank) && view.score.total_cmp(&score).is_eq());
    let turn = usize::try_from(random.checked_rem(ties().count() as u64)?).ok()?;
    ties().nth(turn).map(|view| view.instance)
}

/// A number of 64 random bits as a fraction of one.
fn fraction(random: u64) -> f64 {
    (random >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
