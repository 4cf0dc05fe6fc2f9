//! Places on instances: taken for an attempt, given back however it ends.

use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use protocol::ids::InstanceId;

use crate::balance::{Balance, Candidate, Outcome, Pick, Reservation};
use crate::directory::ChuteRoute;
use crate::instance::verdict::Shortage;

/// The places of this process.
pub struct Places {
    balance: Mutex<Balance>,
    since: Instant,
}

/// A place on one instance.
pub struct Place<'a> {
    places: &'a Places,
    reservation: Option<Reservation>,
    outcome: Outcome,
    /// Where it is.
    pub instance: InstanceId,
    /// Mean calls in flight over the chute's instances when it was taken.
    pub mean_connections: f64,
}

impl Places {
    /// An instance that fails is left alone for `strike`.
    #[must_use]
    pub fn new(strike: Duration) -> Self {
        Self { balance: Mutex::new(Balance::new(strike)), since: Instant::now() }
    }

    /// Takes a place on an instance that was not tried yet, or says what is left.
    ///
    /// # Errors
    /// When there is none to take.
    pub fn take(&self, route: &ChuteRoute, tried: &[InstanceId]) -> Result<Place<'_>, Shortage> {
        match self.balance().pick(&candidates(route), tried, self.now(), rand::random()) {
            Pick::Chosen { reservation, mean_connections } => Ok(Place {
                places: self,
                instance: reservation.instance(),
                reservation: Some(reservation),
                outcome: Outcome::Open,
                mean_connections,
            }),
            Pick::AllBusy => Err(Shortage::Busy),
            Pick::AllStruck | Pick::None => Err(Shortage::None),
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

/// The instances of a chute and how many calls each takes from this process.
fn candidates(route: &ChuteRoute) -> Vec<Candidate> {
    let candidate = |instance| Candidate { instance, places: route.chute.concurrency, elsewhere: 0 };
    route.instances.iter().map(|target| candidate(target.instance.id)).collect()
}
