//! One of twenty instances dies under load, or turns slow: what clients see of it, and what is recorded.

use std::collections::BTreeMap;
use std::time::Duration;

use sqlx::PgPool;
use stack::miner::{Behaviour, Engine};
use stack::proof::Size;
use stack::screen;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::books;
use crate::faults;
use crate::load::{End, Load, Seen};
use crate::scene::{Scene, User};

const INSTANCES: usize = 20;
const SEED: u64 = 20;
/// A stream that is under way when its instance dies takes some seconds.
const TOKENS_PER_SECOND: f64 = 40.0;
const PREFILL: u64 = 40;
/// How long a slow instance may keep more than half its share.
const NOTICED: Duration = Duration::from_secs(2);

async fn scene() -> (Scene, User) {
    let (scene, user) = faults::scene_with(|options| {
        options.text_instances = INSTANCES;
        options.gateways = 1;
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
    let clients = Size::asked().pick(20, 100);
    let load = Load::start(&scene, &user, clients, SEED);
    // So many calls that a tenth of them is more than can be in flight at one instance.
    sleep(Duration::from_secs(Size::asked().pick(6, 15))).await;
    let victim = scene.sample(Engine::Vllm).instances[7].clone();
    let in_flight = scene.platform.miner.counters(victim.port).await.unwrap().in_flight;
    scene.platform.miner.kill_instance(victim.port).await.unwrap();
    sleep(Duration::from_secs(Size::asked().pick(6, 30))).await;
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

/// The part of the calls between two counts that one instance had, as a multiple of its fair part.
fn share(before: &[u64], after: &[u64], instance: usize) -> f64 {
    let calls: Vec<u64> = before.iter().zip(after).map(|(before, after)| after - before).collect();
    calls[instance] as f64 * calls.len() as f64 / calls.iter().sum::<u64>() as f64
}

#[tokio::test]
async fn a_three_times_slower_instance_loses_half_its_share_within_two_seconds_and_earns_it_back() {
    let (scene, user) = scene().await;
    let clients = Size::asked().pick(30, 100);
    let watched = Duration::from_secs(Size::asked().pick(6, 20));
    let load = Load::start(&scene, &user, clients, SEED + 1);
    sleep(watched).await;
    let mut counts = vec![accepted(&scene).await];
    sleep(watched).await;
    counts.push(accepted(&scene).await);
    let slow = scene.sample(Engine::Vllm).instances[7].port;
    scene.platform.miner.set(slow, &behaviour(3)).await.unwrap();
    sleep(NOTICED).await;
    counts.push(accepted(&scene).await);
    sleep(watched).await;
    counts.push(accepted(&scene).await);
    scene.platform.miner.set(slow, &behaviour(1)).await.unwrap();
    sleep(watched * 2).await;
    counts.push(accepted(&scene).await);
    sleep(watched).await;
    counts.push(accepted(&scene).await);
    let seen = load.stop().await;
    faults::show("one of twenty instances three times slower", &seen);
    let [healthy, at_first, noticed, _, well] =
        [0, 1, 2, 3, 4].map(|number| share(&counts[number], &counts[number + 1], 7));
    screen::say(&format!(
        "its share: {healthy:.2} while well, {at_first:.2} in the first two seconds, {noticed:.2} after, {well:.2} when \
         well again"
    ));
    assert!(seen.iter().all(|call| call.end == End::Whole));
    assert!(noticed <= healthy / 2.0, "{noticed} of {healthy}");
    assert!(noticed > 0.0, "it was starved");
    assert!(well > healthy * 0.6, "{well} of {healthy}");
}
