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
const TOKENS_PER_SECOND: f64 = 20.0;
const PREFILL: u64 = 100;
/// How long a slow instance may keep more than half its share, on a machine that has the time for it.
const NOTICED: Duration = Duration::from_secs(2);
/// Calls over which a share is taken: thirty for each instance.
const CALLS: u64 = 600;
/// Longer than any work waits for a processor: what is refused for want of one tells nothing of instances.
const NO_LIMIT: &str = "60";
const POLL: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(120);

async fn scene() -> (Scene, User) {
    let (scene, user) = faults::scene_with(|options| {
        options.text.instances = INSTANCES;
        options.gateways = 1;
        options.gateway_settings.push(("GATEWAY_MAX_LAG_SECONDS".into(), NO_LIMIT.into()));
    })
    .await;
    scene.behave(Engine::Vllm, &behaviour(1)).await;
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
    let load = Load::start(&scene, &user, Size::asked().pick(40, 100), SEED);
    share(&scene, 7, Size::asked().pick(CALLS / 4, CALLS)).await;
    let victim = scene.sample(Engine::Vllm).instances[7].clone();
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
    let before = failed.values().flatten().filter(|(delivered, _)| !delivered).count();
    let after = failed.values().flatten().filter(|(delivered, _)| *delivered).count();
    screen::say(&format!(
        "{in_flight} calls in flight at it: {after} streams ended with an error event, {before} attempts failed before \
         the first byte, in {} calls",
        seen.len()
    ));
    assert!(failed.values().all(|attempts| attempts.len() == 1), "more than one failed attempt: {failed:?}");
    assert!(!failed.is_empty(), "nothing failed");
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

/// Waits for so many calls; the part of them that one instance had, as a multiple of its fair part.
async fn share(scene: &Scene, instance: usize, calls: u64) -> f64 {
    let (before, deadline) = (accepted(scene).await, Instant::now() + LONGEST);
    loop {
        let since: Vec<u64> = before.iter().zip(accepted(scene).await).map(|(before, after)| after - before).collect();
        let all: u64 = since.iter().sum();
        if all >= calls {
            return since[instance] as f64 * INSTANCES as f64 / all as f64;
        }
        assert!(Instant::now() < deadline, "only {all} calls came");
        sleep(POLL).await;
    }
}

#[tokio::test]
async fn a_three_times_slower_instance_loses_half_its_share_within_two_seconds_and_earns_it_back() {
    let (scene, user) = scene().await;
    let load = Load::start(&scene, &user, Size::asked().pick(40, 100), SEED + 1);
    let calls = Size::asked().pick(CALLS / 2, CALLS);
    share(&scene, 7, calls).await;
    let healthy = share(&scene, 7, calls).await;
    let port = scene.sample(Engine::Vllm).instances[7].port;
    scene.platform.miner.set(port, &behaviour(3)).await.unwrap();
    match Size::asked() {
        Size::Small => {
            share(&scene, 7, calls).await;
        }
        Size::Full => sleep(NOTICED).await,
    }
    let noticed = share(&scene, 7, calls).await;
    scene.platform.miner.set(port, &behaviour(1)).await.unwrap();
    share(&scene, 7, 2 * CALLS).await;
    let well = share(&scene, 7, calls).await;
    let seen = load.stop().await;
    faults::show("one of twenty instances three times slower", &seen);
    screen::say(&format!("its share: {healthy:.2} while well, {noticed:.2} while slow, {well:.2} when well again"));
    assert!(seen.iter().all(|call| call.end == End::Whole));
    assert!(noticed <= healthy / 2.0, "{noticed} of {healthy}");
    assert!(well > noticed && well > healthy * 0.5, "{well} of {healthy}");
}
