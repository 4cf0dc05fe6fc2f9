//! Chooses the instance with the fewest calls in flight, within its concurrency, and leaves failing ones alone.

use std::collections::HashMap;
use std::time::Duration;

use ahash::RandomState;
use protocol::ids::InstanceId;

/// The calls in flight on the instances of all chutes, and which instances are struck out.
///
/// Only instances that are busy or struck out are remembered, so that memory is bounded by calls in flight and, with
/// [`Balance::keep`], by the directory. Times are durations since any fixed moment.
#[derive(Debug)]
pub struct Balance {
    strike: Duration,
    loads: HashMap<InstanceId, Load, RandomState>,
}

/// One instance as this process sees it.
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    outstanding: u32,
    standing: Standing,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Standing {
    /// Takes calls.
    #[default]
    Good,
    /// Takes no call until then, after that one.
    Struck { until: Duration },
    /// Has the one call that shows whether it works again.
    OnTrial,
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
    trial: bool,
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
    /// Those left have no place, or wait for a trial to end.
    AllBusy,
    /// Those left are struck out.
    AllStruck,
    /// None is left.
    None,
}

/// What a call showed of its instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It answers.
    Works,
    /// It does not answer as it should.
    Fails,
    /// Neither: the client left first, or the fault may be elsewhere.
    Open,
}

impl Reservation {
    /// The instance.
    #[must_use]
    pub fn instance(&self) -> InstanceId {
        self.instance
    }
}

impl Balance {
    /// An empty one; an instance that fails is left alone for `strike`.
    #[must_use]
    pub fn new(strike: Duration) -> Self {
        Self { strike, loads: HashMap::default() }
    }

    /// Chooses among the candidates not tried yet and takes the place in the same step. `random` breaks ties.
    pub fn pick(&mut self, candidates: &[Candidate], tried: &[InstanceId], now: Duration, random: u64) -> Pick {
        let untried = || candidates.iter().filter(|candidate| !tried.contains(&candidate.instance));
        let (mut least, mut ties) = (u32::MAX, 0_u64);
        let (mut left, mut struck) = (0_usize, 0_usize);
        for candidate in untried() {
            let load = self.load(candidate.instance);
            left += 1;
            struck += usize::from(matches!(load.standing, Standing::Struck { until } if now < until));
            let calls = load.calls(candidate);
            if !load.takes_calls(candidate.places, now) || calls > least {
                continue;
            }
            ties = if calls == least { ties + 1 } else { 1 };
            least = calls;
        }
        let Some(turn) = random.checked_rem(ties) else {
            return match left {
                0 => Pick::None,
                _ if left == struck => Pick::AllStruck,
                _ => Pick::AllBusy,
            };
        };
        let chosen = untried()
            .filter(|candidate| {
                let load = self.load(candidate.instance);
                load.calls(candidate) == least && load.takes_calls(candidate.places, now)
            })
            .nth(usize::try_from(turn).unwrap_or(0));
        let Some(candidate) = chosen else { return Pick::None };
        let mean_connections = self.mean_connections(candidates);
        Pick::Chosen { reservation: self.reserve(candidate.instance), mean_connections }
    }

    /// Notes that the instance has begun to answer, before the call is over: a strike is cleared.
    pub fn answered(&mut self, reservation: &Reservation) {
        if let Some(load) = self.loads.get_mut(&reservation.instance) {
            load.standing = Standing::Good;
        }
    }

    /// Strikes out an instance on evidence that came after its call was over.
    pub fn strike(&mut self, instance: InstanceId, now: Duration) {
        let until = now.saturating_add(self.strike);
        self.loads.entry(instance).or_default().standing = Standing::Struck { until };
    }

    /// Gives the place back with what the call showed.
    pub fn release(&mut self, reservation: Reservation, outcome: Outcome, now: Duration) {
        let Some(load) = self.loads.get_mut(&reservation.instance) else { return };
        load.outstanding = load.outstanding.saturating_sub(1);
        match outcome {
            Outcome::Works => load.standing = Standing::Good,
            Outcome::Fails => load.standing = Standing::Struck { until: now.saturating_add(self.strike) },
            // A trial that showed nothing leaves the next call to be the trial.
            Outcome::Open if reservation.trial && load.standing == Standing::OnTrial => {
                load.standing = Standing::Struck { until: now };
            }
            Outcome::Open => {}
        }
        if load.outstanding == 0 && load.standing == Standing::Good {
            self.loads.remove(&reservation.instance);
        }
    }

    /// Forgets strikes of instances that are gone; calls in flight are counted until they are released.
    pub fn keep(&mut self, is_there: impl Fn(InstanceId) -> bool) {
        self.loads.retain(|instance, load| load.outstanding > 0 || is_there(*instance));
    }

    fn mean_connections(&self, candidates: &[Candidate]) -> f64 {
        let calls = |candidate: &Candidate| u64::from(self.load(candidate.instance).calls(candidate));
        candidates.iter().map(calls).sum::<u64>() as f64 / candidates.len().max(1) as f64
    }

    fn load(&self, instance: InstanceId) -> Load {
        self.loads.get(&instance).copied().unwrap_or_default()
    }

    fn reserve(&mut self, instance: InstanceId) -> Reservation {
        let load = self.loads.entry(instance).or_default();
        load.outstanding += 1;
        let trial = load.standing != Standing::Good;
        if trial {
            load.standing = Standing::OnTrial;
        }
        Reservation { instance, trial }
    }
}

impl Load {
    /// Calls at the instance, of all gateways.
    fn calls(self, candidate: &Candidate) -> u32 {
        self.outstanding.saturating_add(candidate.elsewhere)
    }

    fn takes_calls(self, places: u32, now: Duration) -> bool {
        let stands = match self.standing {
            Standing::Good => true,
            Standing::Struck { until } => until <= now,
            Standing::OnTrial => false,
        };
        stands && self.outstanding < places
    }
}

#[cfg(test)]
mod tests;
