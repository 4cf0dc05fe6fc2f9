//! One of twenty instances dies under load, or turns slow: what clients see of it, and what is recorded.

use std::collections::BTreeMap;
use std::time::Duration;

use sqlx::PgPool;
use stack::miner::{Behaviour, Engine};
use stack::proof::Size;
use stack::screen;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::books;
use crate::faults;
use crate::load::{End, Load, Seen};
use crate::scene::{Scene, User};

const INSTANCES: usize = 20;
const SEED: u64 = 20;
/// The instance that dies.
const VICTIM: usize = 7;
/// Why an attempt failed whose instance was gone after it was asked.
const CUT: &str = "CONNECTION_CLOSED";
const TOKENS_PER_SECOND: f64 = 20.0;
const PREFILL: u64 = 100;
/// Time enough to kill an instance before a call that it has just taken has its first token.
const LONG_PREFILL: u64 = 500;
/// Time over which a share is taken.
const WINDOW: Duration = Duration::from_secs(2);
/// How long an instance that was slow is given until its share is taken again.
const FORGIVEN: Duration = Duration::from_secs(10);
/// Calls that each instance has had by the time its speed is known.
const KNOWN: u64 = 10;
/// Longer than any work waits for a processor: what is refused for want of one tells nothing of instances.
const NO_LIMIT: &str = "60";
const POLL: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_secs(120);

async fn scene() -> (Scene, User) {
    let (scene, user) = faults::scene_with(|options| {
        options.text.instances = INSTANCES;
        options.gateways = 1;
        options.gateway_settings.push(("GATEWAY_MAX_LAG_SECONDS".into(), NO_LIMIT.into()));
    })
    .await;
    (scene, user)
}

/// An instance so many times slower than another.
fn behaviour(times: u32) -> Behaviour {
    Behaviour {
        tokens_per_second: TOKENS_PER_SECOND / f64::from(times),
        prefill_ms: PREFILL * u64::from(times),
        ..Behaviour::default()
    }
}

/// Attempts of the user's calls that failed, by call: whether something had reached the client, and why.
async fn failed(db: &PgPool, user: &User) -> BTreeMap<Uuid, Vec<(bool, String)>> {
    let user: Uuid = user.id.parse().unwrap();
    let text = "select parent_invocation_id, delivered, error_message from invocations \
                where user_id = $1 and outcome = 'failed'";
    let rows: Vec<(Uuid, bool, String)> = sqlx::query_as(text).bind(user).fetch_all(db).await.unwrap();
    let mut failed: BTreeMap<Uuid, Vec<(bool, String)>> = BTreeMap::new();
    for (call, delivered, error) in rows {
        failed.entry(call).or_default().push((delivered, error));
    }
    failed
}

#[tokio::test]
async fn one_dead_instance_of_twenty_costs_each_call_at_most_one_attempt_and_no_client_an_error_before_its_first_byte()
{
    let (mut scene, user) = scene().await;
    scene.behave(Engine::Vllm, &Behaviour { prefill_ms: LONG_PREFILL, ..behaviour(1) }).await;
    let load = Load::start(&scene, &user, Size::asked().pick(40, 100), SEED);
    until_begun(&scene, KNOWN * INSTANCES as u64).await;
    let victim = scene.sample(Engine::Vllm).instances[VICTIM].clone();
    until_asked(&scene, victim.port).await;
    let in_flight = scene.platform.miner.counters(victim.port).await.unwrap().in_flight;
    scene.platform.miner.kill_instance(victim.port).await.unwrap();
    sleep(Duration::from_secs(Size::asked().pick(5, 30))).await;
    let seen = load.stop().await;
    faults::show("one of twenty instances killed", &seen);

    let unanswered: Vec<&Seen> =
        seen.iter().filter(|call| matches!(call.end, End::Nothing | End::Refused(_))).collect();
    assert!(unanswered.is_empty(), "clients saw errors before a first byte: {unanswered:?}");
    let broken: Vec<&Seen> = seen.iter().filter(|call| call.end != End::Whole).collect();
    assert!(broken.iter().all(|call| call.end == End::Told && call.tokens > 0), "cut without a word: {broken:?}");
    books::balance(&mut scene, &user, &seen).await;

    let failed = failed(&scene.db, &user).await;
    let attempts = || failed.values().flatten();
    let after = attempts().filter(|(delivered, _)| *delivered).count();
    let before = attempts().filter(|(delivered, _)| !delivered).count();
    let waiting = attempts().filter(|(delivered, reason)| !delivered && reason == CUT).count();
    screen::say(&format!(
        "{in_flight} calls in flight at it: {after} streams ended with an error event, {before} attempts failed before \
         the first byte, {waiting} of them because they were cut, in {} calls",
        seen.len()
    ));
    assert!(failed.values().all(|attempts| attempts.len() == 1), "more than one failed attempt: {failed:?}");
    assert!(waiting > 0, "no call had to go to another instance: {failed:?}");
    assert_eq!(after, broken.len());
}

/// Calls that each instance has begun so far.
async fn accepted(scene: &Scene) -> Vec<u64> {
    let mut accepted = Vec::new();
    for instance in &scene.sample(Engine::Vllm).instances {
        accepted.push(scene.platform.miner.counters(instance.port).await.unwrap().accepted);
    }
    accepted
}

/// Until the instances have begun so many calls.
async fn until_begun(scene: &Scene, calls: u64) {
    let deadline = Instant::now() + LONGEST;
    while accepted(scene).await.iter().sum::<u64>() < calls {
        assert!(Instant::now() < deadline, "not so many calls came");
        sleep(POLL).await;
    }
}

/// Until an instance begins another call.
async fn until_asked(scene: &Scene, port: u16) {
    let counters = async || scene.platform.miner.counters(port).await.unwrap();
    let (before, deadline) = (counters().await.accepted, Instant::now() + LONGEST);
    while counters().await.accepted == before {
        assert!(Instant::now() < deadline, "no call came to the instance");
        sleep(POLL).await;
    }
}

/// Calls that one instance had, and those of all.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    own: u64,
    all: u64,
}

impl Share {
    /// Takes in what comes within the window.
    async fn watch(&mut self, scene: &Scene, instance: usize) {
        let before = accepted(scene).await;
        sleep(WINDOW).await;
        let since: Vec<u64> = before.iter().zip(accepted(scene).await).map(|(before, after)| after - before).collect();
        self.own += since[instance];
        self.all += since.iter().sum::<u64>();
    }

    /// As a multiple of a fair one.
    fn fairness(self) -> f64 {
        self.own as f64 * INSTANCES as f64 / self.all as f64
    }
}

/// One instance after the other is slow for a moment, so that each share is taken over a short time and all together
/// are many calls: in the full size some sixteen calls come to an instance in a window, a hundred in all of them; in the
/// small size, whose machine may be busy and whose callers are few, a fifth of that.
#[tokio::test]
async fn a_three_times_slower_instance_loses_half_its_share_within_two_seconds_and_earns_it_back() {
    let (scene, user) = scene().await;
    scene.behave(Engine::Vllm, &behaviour(1)).await;
    let load = Load::start(&scene, &user, Size::asked().pick(60, 200), SEED + 1);
    let victims = 0..Size::asked().pick(4, 6);
    let noticed_within = Duration::from_secs(Size::asked().pick(4, 2));
    until_begun(&scene, KNOWN * INSTANCES as u64).await;
    let (mut healthy, mut slow, mut well) = (Share::default(), Share::default(), Share::default());
    for victim in victims.clone() {
        healthy.watch(&scene, victim).await;
        let port = scene.sample(Engine::Vllm).instances[victim].port;
        scene.platform.miner.set(port, &behaviour(3)).await.unwrap();
        sleep(noticed_within).await;
        slow.watch(&scene, victim).await;
        scene.platform.miner.set(port, &behaviour(1)).await.unwrap();
    }
    sleep(FORGIVEN).await;
    for victim in victims {
        well.watch(&scene, victim).await;
    }
    let seen = load.stop().await;
    faults::show("one of twenty instances three times slower", &seen);
    screen::say(&format!(
        "its share: {:.2} while well, {:.2} from {noticed_within:?} after it became slow, {:.2} when well again; \
         {healthy:?}, {slow:?}, {well:?}",
        healthy.fairness(),
        slow.fairness(),
        well.fairness()
    ));
    assert!(seen.iter().all(|call| call.end == End::Whole));
    assert!(healthy.own >= Size::asked().pick(5, 60), "too few calls to tell: {healthy:?}");
    assert!(slow.fairness() <= healthy.fairness() / 2.0, "{slow:?} of {healthy:?}");
    assert!(well.fairness() > healthy.fairness() / 2.0, "{well:?} of {healthy:?}");
}
