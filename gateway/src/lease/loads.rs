//! What this gateway has to do, for the others and the autoscaler, and what the others have to do.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use ahash::RandomState;
use arc_swap::ArcSwap;
use protocol::ids::{ChuteId, InstanceId};
use protocol::load::{ChuteLoad, Load};

/// Chutes that are told of; more are left out, the ones with the largest ids.
const CHUTES: usize = 10_000;

/// The loads of all gateways.
#[derive(Default)]
pub struct Loads {
    own: Mutex<Load>,
    /// Attempts that other gateways have on each instance; empty while that is not known.
    others: ArcSwap<HashMap<InstanceId, u32, RandomState>>,
}

/// An attempt on an instance; it is in flight until this is dropped.
pub struct Attempt {
    loads: Arc<Loads>,
    chute: ChuteId,
    instance: InstanceId,
}

impl Loads {
    /// Counts an attempt on an instance.
    #[must_use]
    pub fn enter(self: &Arc<Self>, chute: ChuteId, instance: InstanceId) -> Attempt {
        *self.own().chutes.entry(chute).or_default().in_flight.entry(instance).or_default() += 1;
        Attempt { loads: Arc::clone(self), chute, instance }
    }

    /// Counts a call that found no place on a chute.
    pub fn limited(&self, chute: ChuteId) {
        self.own().chutes.entry(chute).or_default().limited += 1;
    }

    /// Attempts that other gateways had on an instance when they last told.
    #[must_use]
    pub fn elsewhere(&self, instance: InstanceId) -> u32 {
        self.others.load().get(&instance).copied().unwrap_or(0)
    }

    /// Forgets chutes that are gone and have nothing in flight.
    pub fn keep(&self, is_there: impl Fn(ChuteId) -> bool) {
        self.own().chutes.retain(|chute, load| !load.in_flight.is_empty() || is_there(*chute));
    }

    /// What this gateway has to do.
    pub(super) fn tell(&self) -> Load {
        let chutes: BTreeMap<ChuteId, ChuteLoad> =
            self.own().chutes.iter().take(CHUTES).map(|(chute, load)| (*chute, load.clone())).collect();
        Load { chutes }
    }

    /// What the others have to do.
    pub(super) fn hear(&self, loads: &[Load]) {
        let mut others: HashMap<InstanceId, u32, RandomState> = HashMap::default();
        for (instance, calls) in loads.iter().flat_map(|load| load.chutes.values()).flat_map(|chute| &chute.in_flight) {
            let sum = others.entry(*instance).or_default();
            *sum = sum.saturating_add(*calls);
        }
        self.others.store(Arc::new(others));
    }

    fn own(&self) -> MutexGuard<'_, Load> {
        self.own.lock().expect("nothing panics under this lock")
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let mut own = self.loads.own();
        let Some(chute) = own.chutes.get_mut(&self.chute) else { return };
        chute.completed += 1;
        if let Some(calls) = chute.in_flight.get_mut(&self.instance) {
            *calls = calls.saturating_sub(1);
            if *calls == 0 {
                chute.in_flight.remove(&self.instance);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_in_flight_are_told_and_those_of_others_added_up() {
        let (loads, chute, instance) = (Arc::new(Loads::default()), ChuteId::random(), InstanceId::random());
        let first = loads.enter(chute, instance);
        let second = loads.enter(chute, instance);
        loads.limited(chute);
        let told = loads.tell();
        assert_eq!(told.chutes[&chute], ChuteLoad { completed: 0, limited: 1, in_flight: [(instance, 2)].into() });
        loads.hear(&[told.clone(), told]);
        assert_eq!((loads.elsewhere(instance), loads.elsewhere(InstanceId::random())), (4, 0));
        drop((first, second));
        assert_eq!(loads.tell().chutes[&chute], ChuteLoad { completed: 2, limited: 1, in_flight: [].into() });
        loads.hear(&[]);
        assert_eq!(loads.elsewhere(instance), 0);
        loads.keep(|_| false);
        assert_eq!(loads.tell(), Load::default());
    }
}
