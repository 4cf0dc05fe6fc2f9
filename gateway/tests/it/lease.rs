//! Gateways that share limits through a real Redis.

mod faults;
mod measure;
mod model;
mod sharing;

use std::sync::Arc;
use std::time::Duration;

use gateway::lease::{Desk, Instances, Leases, Loads};
use gateway::limit::{Caps, Limits, Quota};
use gateway::metrics::Metrics;
use gateway::refusal::Refusal;
use protocol::directory::Chute;
use protocol::ids::{ChuteId, ImageId, UserId, WriterId};
use protocol::principal::UserEntry;
use protocol::slug::Slug;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::who::{Who, eventually, user};

/// How long leases hold in tests.
const LIFETIME: Duration = Duration::from_secs(1);

/// The shared limits of one gateway, with its desk.
pub(crate) struct Sharer {
    pub(crate) limits: Arc<Limits>,
    pub(crate) quota: Arc<Quota>,
    pub(crate) instances: Arc<Instances>,
    pub(crate) loads: Arc<Loads>,
    pub(crate) metrics: Arc<Metrics>,
    leases: Arc<Leases>,
    stop: watch::Sender<bool>,
    desk: JoinSet<()>,
}

impl Sharer {
    /// Starts one, and waits until it shares.
    pub(crate) async fn start(who: &Who, redis_url: &str, writer: WriterId) -> Self {
        let metrics = Arc::new(Metrics::new().unwrap());
        let (leases, questions) = Leases::new(LIFETIME, Arc::clone(&metrics));
        let limits = Arc::new(Limits::new(Caps { per_minute: 1000, at_once: 1000 }, Arc::clone(&leases)));
        let quota = Arc::new(Quota::new(Arc::clone(&who.principals), Arc::clone(&leases), writer));
        let instances = Arc::new(Instances::new(Arc::clone(&leases)));
        let loads = Arc::new(Loads::default());
        let books = (Arc::clone(&limits), Arc::clone(&quota), Arc::clone(&instances));
        let client = redis::Client::open(redis_url).unwrap();
        let serving = Desk::new(Arc::clone(&leases), questions, books, Arc::clone(&loads), client, writer);
        let (stop, mut desk) = (watch::Sender::new(false), JoinSet::new());
        desk.spawn(serving.run(stop.subscribe()));
        desk.spawn(Arc::clone(&quota).recount_always());
        let sharer = Self { limits, quota, instances, loads, metrics, leases, stop, desk };
        sharer.shares().await;
        sharer
    }

    /// Several of them.
    async fn several(who: &Who, number: usize) -> Vec<Arc<Self>> {
        let mut sharers = Vec::new();
        for _ in 0..number {
            sharers.push(Arc::new(Self::start(who, &who.redis.url(), WriterId::random()).await));
        }
        let all = i64::try_from(number).unwrap();
        for sharer in &sharers {
            eventually("they know each other", async || sharer.metrics.limits.gateways.get() == all).await;
        }
        sharers
    }

    /// Waits until Redis gives it slots.
    async fn shares(&self) {
        eventually("redis gives out slots", async || self.metrics.limits.shared.get() == 1).await;
    }

    /// Waits until Redis counts as away.
    async fn is_alone(&self) {
        eventually("redis is away", async || self.metrics.limits.shared.get() == 0).await;
    }

    /// Gives back what it keeps ready, as a gateway that stops.
    async fn stop(&self) {
        self.stop.send_replace(true);
        eventually("nothing is kept ready", async || {
            self.metrics.limits.ready.with_label_values(&["caller"]).get() == 0
        })
        .await;
    }

    /// Dies without a word.
    fn kill(&mut self) {
        self.desk.abort_all();
    }
}

/// Calls that are let in, one after the other, up to so many tries; each ends at once.
async fn let_in(sharer: &Sharer, user: &UserEntry, chute: &Chute, tries: usize) -> usize {
    let mut passed = 0;
    for _ in 0..tries {
        match sharer.limits.take(user, chute).await {
            Ok(_) => passed += 1,
            Err(Refusal::RateLimited { .. } | Refusal::TooManyAtOnce { .. }) => {}
            Err(other) => panic!("{other:?}"),
        }
    }
    passed
}

/// A user with these limits.
fn limited(per_minute: u32, at_once: u32) -> UserEntry {
    UserEntry { rate_per_minute: Some(per_minute), max_concurrent: Some(at_once), ..user() }
}

/// A chute without limits of its own.
fn chute() -> Chute {
    Chute {
        id: ChuteId::random(),
        name: "chute".into(),
        slug: Slug::parse("chute").unwrap(),
        owner: UserId::random(),
        public: true,
        shares: vec![],
        template: None,
        cords: vec![],
        image: ImageId::random(),
        image_owner: UserId::random(),
        model: None,
        price: None,
        concurrency: 1,
        multiplier: 1.0,
        invocations: 0,
        rate_per_minute: None,
        max_concurrent: None,
        maintenance: false,
        instances: vec![],
    }
}
