//! Places on instances: taken for an attempt, given back however it ends.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use protocol::ids::InstanceId;

use crate::balance::{Balance, Candidate, Outcome, Pick, Reservation};
use crate::directory::ChuteRoute;
use crate::instance::verdict::Shortage;
use crate::lease::{Attempt, Instances, Loads, Slot};

/// The places of this process.
pub struct Places {
    balance: Mutex<Balance>,
    slots: Arc<Instances>,
    loads: Arc<Loads>,
    since: Instant,
}

/// A place on one instance.
pub struct Place<'a> {
    places: &'a Places,
    reservation: Option<Reservation>,
    outcome: Outcome,
    /// What it takes of the instance's concurrency, among all gateways; none while it is asked for.
    held: Option<(Slot, Attempt)>,
    /// Where it is.
    pub instance: InstanceId,
    /// Mean calls in flight over the chute's instances when it was taken.
    pub mean_connections: f64,
}

impl Places {
    /// An instance that fails is left alone for `strike`; `slots` are shared with other gateways, `loads` told to them.
    #[must_use]
    pub fn new(strike: Duration, slots: Arc<Instances>, loads: Arc<Loads>) -> Self {
        Self { balance: Mutex::new(Balance::new(strike)), slots, loads, since: Instant::now() }
    }

    /// Takes a place on an instance that was not tried yet, or says what is left.
    ///
    /// # Errors
    /// When there is none to take.
    pub async fn take(&self, route: &ChuteRoute, tried: &[InstanceId]) -> Result<Place<'_>, Shortage> {
        let mut passed = tried.to_vec();
        loop {
            let picked = self.balance().pick(&self.candidates(route), &passed, self.now(), rand::random());
            let mut place = match picked {
                Pick::Chosen { reservation, mean_connections } => Place {
                    places: self,
                    instance: reservation.instance(),
                    reservation: Some(reservation),
                    outcome: Outcome::Open,
                    held: None,
                    mean_connections,
                },
                Pick::AllStruck | Pick::None if passed.len() == tried.len() => return Err(Shortage::None),
                Pick::AllBusy | Pick::AllStruck | Pick::None => {
                    self.loads.limited(route.chute.id);
                    return Err(Shortage::Busy);
                }
            };
            if let Some(slot) = self.slots.take(place.instance, route.chute.concurrency).await {
                place.held = Some((slot, self.loads.enter(route.chute.id, place.instance)));
                return Ok(place);
            }
            // Other gateways have filled it.
            passed.push(place.instance);
        }
    }

    /// Strikes out an instance whose fault showed only later.
    pub fn strike(&self, instance: InstanceId) {
        self.balance().strike(instance, self.now());
    }

    /// Forgets what is known of instances that are gone.
    pub fn keep(&self, is_there: impl Fn(InstanceId) -> bool) {
        self.balance().keep(is_there);
    }

    /// The instances of a chute and how many calls each takes from this process.
    fn candidates(&self, route: &ChuteRoute) -> Vec<Candidate> {
        let candidate = |instance| Candidate {
            instance,
            places: self.slots.places(instance, route.chute.concurrency),
            elsewhere: self.loads.elsewhere(instance),
        };
        route.instances.iter().map(|target| candidate(target.instance.id)).collect()
    }

    fn balance(&self) -> MutexGuard<'_, Balance> {
        self.balance.lock().expect("nothing panics under this lock")
    }

    fn now(&self) -> Duration {
        self.since.elapsed()
    }
}

impl Place<'_> {
    /// The instance has begun to answer.
    pub fn answered(&mut self) {
        self.outcome = Outcome::Works;
        if let Some(reservation) = &self.reservation {
            self.places.balance().answered(reservation);
        }
    }

    /// What the attempt showed of the instance in the end.
    pub fn showed(&mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(reservation) = self.reservation.take() {
            self.places.balance().release(reservation, self.outcome, self.places.now());
        }
    }
}
