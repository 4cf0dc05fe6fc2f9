//! Places on instances: taken for an attempt, given back however it ends.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use protocol::ids::{ChuteId, InstanceId};

use crate::balance::{Balance, Candidate, Outcome, Pick, Reservation, Rule, Work};
use crate::directory::{ChuteRoute, Routes};
use crate::instance::verdict::Shortage;
use crate::lease::{Attempt, Instances, Loads, Slot};
use crate::metrics::Metrics;
use crate::retry::Budget;

/// The places of this process, and how often a call may look for another one.
pub struct Places {
    balance: Mutex<Balance>,
    budget: Mutex<Budget>,
    slots: Arc<Instances>,
    loads: Arc<Loads>,
    since: Instant,
    metrics: Arc<Metrics>,
}

/// A place on one instance.
pub struct Place<'a> {
    places: &'a Places,
    reservation: Option<Reservation>,
    outcome: Outcome,
    chute: ChuteId,
    /// What it takes of the instance's concurrency, among all gateways; none while it is asked for.
    held: Option<(Slot, Attempt)>,
    /// Where it is.
    pub instance: InstanceId,
    /// Mean calls in flight over the chute's instances when it was taken.
    pub mean_connections: f64,
}

impl Places {
    /// Instances that fail are left alone by this rule; `floor` retries are always allowed; `slots` are shared with
    /// other gateways, `loads` told to them.
    #[must_use]
    pub fn new(rule: Rule, floor: u32, slots: Arc<Instances>, loads: Arc<Loads>, metrics: Arc<Metrics>) -> Self {
        let (balance, budget) = (Mutex::new(Balance::new(rule)), Mutex::new(Budget::new(floor)));
        Self { balance, budget, slots, loads, since: Instant::now(), metrics }
    }

    /// Takes a place for the first attempt of a call, or says what is left.
    ///
    /// # Errors
    /// When there is none to take.
    pub async fn first(&self, route: &ChuteRoute) -> Result<Place<'_>, Shortage> {
        self.budget().call(route.chute.id, self.now());
        self.take(route, &[]).await
    }

    /// Takes a place for another attempt, on an instance that was not tried yet; an orphan was under way when the
    /// connection to its first instance broke.
    ///
    /// # Errors
    /// When there is none to take, or too many attempts were repeated of late.
    pub async fn another(
        &self,
        route: &ChuteRoute,
        tried: &[InstanceId],
        is_orphan: bool,
    ) -> Result<Place<'_>, Shortage> {
        let place = self.take(route, tried).await?;
        let orphans = is_orphan.then_some(route.chute.concurrency);
        let granted = self.budget().retry(route.chute.id, orphans, self.now());
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
        self.balance().keep(|instance| routes.has_instance(instance), |chute| routes.has_chute(chute));
        self.budget().keep_recent(self.now());
    }

    /// Shows in the metrics how instances stand.
    pub fn publish(&self) {
        let census = self.balance().census(self.now());
        self.metrics.instances.publish(census);
    }

    async fn take(&self, route: &ChuteRoute, tried: &[InstanceId]) -> Result<Place<'_>, Shortage> {
        // Those that other gateways have filled.
        let mut full = Vec::new();
        loop {
            let picked = self.balance().pick(&self.candidates(route, &full), tried, self.now(), rand::random());
            let mut place = match picked {
                Pick::Chosen { reservation, mean_connections } => Place {
                    places: self,
                    chute: route.chute.id,
                    instance: reservation.instance(),
                    reservation: Some(reservation),
                    outcome: Outcome::Unknown,
                    held: None,
                    mean_connections,
                },
                Pick::AllOpen | Pick::None => return Err(Shortage::None),
                Pick::AllBusy => {
                    if tried.is_empty() {
                        self.loads.limited(route.chute.id);
                    }
                    return Err(Shortage::Busy);
                }
            };
            if let Some(slot) = self.slots.take(place.instance, route.chute.concurrency).await {
                place.held = Some((slot, self.loads.enter(route.chute.id, place.instance)));
                return Ok(place);
            }
            full.push(place.instance);
        }
    }

    /// The instances of a chute and how many calls each takes from this process.
    fn candidates(&self, route: &ChuteRoute, full: &[InstanceId]) -> Vec<Candidate> {
        let places = |instance| match full.contains(&instance) {
            true => 0,
            false => self.slots.places(instance, route.chute.concurrency),
        };
        let candidate =
            |instance| Candidate { instance, places: places(instance), elsewhere: self.loads.elsewhere(instance) };
        route.instances.iter().map(|target| candidate(target.instance.id)).collect()
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
