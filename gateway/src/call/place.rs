//! Places on instances: taken for an attempt, given back however it ends.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use protocol::ids::{ChuteId, InstanceId};

use crate::balance::{Balance, Candidate, Outcome, Pick, Reservation, Rule, Work};
use crate::directory::{ChuteRoute, Routes};
use crate::instance::verdict::Shortage;
use crate::metrics::Metrics;
use crate::retry::Budget;

/// The places of this process, and how often a call may look for another one.
pub struct Places {
    balance: Mutex<Balance>,
    budget: Mutex<Budget>,
    since: Instant,
    metrics: Arc<Metrics>,
}

/// A place on one instance.
pub struct Place<'a> {
    places: &'a Places,
    reservation: Option<Reservation>,
    outcome: Outcome,
    chute: ChuteId,
    /// Where it is.
    pub instance: InstanceId,
    /// Mean calls in flight over the chute's instances when it was taken.
    pub mean_connections: f64,
}

impl Places {
    /// Instances that fail are left alone by this rule; `floor` retries are always allowed.
    #[must_use]
    pub fn new(rule: Rule, floor: u32, metrics: Arc<Metrics>) -> Self {
        let (balance, budget) = (Mutex::new(Balance::new(rule)), Mutex::new(Budget::new(floor)));
        Self { balance, budget, since: Instant::now(), metrics }
    }

    /// Takes a place for the first attempt of a call, or says what is left.
    ///
    /// # Errors
    /// When there is none to take.
    pub fn first(&self, route: &ChuteRoute) -> Result<Place<'_>, Shortage> {
        self.budget().call(route.chute.id, self.now());
        self.take(route, &[])
    }

    /// Takes a place for another attempt, on an instance that was not tried yet.
    ///
    /// # Errors
    /// When there is none to take, or too many attempts were repeated of late.
    pub fn another(&self, route: &ChuteRoute, tried: &[InstanceId]) -> Result<Place<'_>, Shortage> {
        let place = self.take(route, tried)?;
        let granted = self.budget().retry(route.chute.id, self.now());
        granted.map(|()| place).map_err(|spent| {
            self.metrics.instances.retries_refused.with_label_values(&[spent.as_str()]).inc();
            Shortage::Spent
        })
    }

    /// Notes that an instance failed, where that showed only later.
    pub fn failed(&self, instance: InstanceId) {
        self.balance().failed(instance, self.now(), rand::random());
    }

    /// Forgets what is known of instances and chutes that are gone.
    pub fn keep(&self, routes: &Routes) {
        self.balance().keep(|instance| routes.has_instance(instance), |chute| routes.by_id(chute).is_some());
        self.budget().keep_recent(self.now());
    }

    /// Shows in the metrics how instances stand.
    pub fn publish(&self) {
        let census = self.balance().census(self.now());
        self.metrics.instances.publish(census);
    }

    fn take(&self, route: &ChuteRoute, tried: &[InstanceId]) -> Result<Place<'_>, Shortage> {
        match self.balance().pick(&candidates(route), tried, self.now(), rand::random()) {
            Pick::Chosen { reservation, mean_connections } => Ok(Place {
                places: self,
                chute: route.chute.id,
                instance: reservation.instance(),
                reservation: Some(reservation),
                outcome: Outcome::Unknown,
                mean_connections,
            }),
            Pick::AllBusy => Err(Shortage::Busy),
            Pick::AllOpen | Pick::None => Err(Shortage::None),
        }
    }

    fn balance(&self) -> MutexGuard<'_, Balance> {
        self.balance.lock().expect("nothing panics under this lock")
    }

    fn budget(&self) -> MutexGuard<'_, Budget> {
        self.budget.lock().expect("nothing panics under this lock")
    }

    fn now(&self) -> Duration {
        self.since.elapsed()
    }
}

impl Place<'_> {
    /// The instance has begun to answer, after so much time.
    pub fn answered(&mut self, work: Work, took: Duration) {
        self.outcome = Outcome::Works;
        let (mut balance, now) = (self.places.balance(), self.places.now());
        balance.measured(self.chute, self.instance, work, took, now);
        if let Some(reservation) = &self.reservation {
            balance.answered(reservation, now);
        }
    }

    /// The stream flows, a chunk in so much time.
    pub fn flows(&self, per_chunk: Duration) {
        let now = self.places.now();
        self.places.balance().measured(self.chute, self.instance, Work::Chunk, per_chunk, now);
    }

    /// What the attempt showed of the instance in the end.
    pub fn showed(&mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(reservation) = self.reservation.take() {
            self.places.balance().release(reservation, self.outcome, self.places.now(), rand::random());
        }
    }
}

/// The instances of a chute and how many calls each takes from this process.
fn candidates(route: &ChuteRoute) -> Vec<Candidate> {
    let candidate = |instance| Candidate { instance, places: route.chute.concurrency, elsewhere: 0 };
    route.instances.iter().map(|target| candidate(target.instance.id)).collect()
}
