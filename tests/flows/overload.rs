//! Ten times the load that the stack can take: what it takes is still served, the rest is told so at once.
//!
//! The first stack is at its end because its instances are, which is how an overload looks where models run. The second
//! has instances that answer at once, so that the processors of the machine, which the driver shares, are the limit: what
//! it shows is that calls are refused clearly, that nothing is lost and that it ends, not how much is served meanwhile.

use std::time::Duration;

use stack::miner::{Behaviour, Engine};
use stack::proof::Size;
use stack::sample::Capacity;
use stack::screen;
use tokio::time::{Instant, sleep};

use crate::lanes::{Offered, Paced};
use crate::load::{End, Seen};
use crate::scene::{Scene, User};
use crate::{books, faults};

/// Connections of all clients together; one address may have 1,024.
const LANES: usize = 1000;
/// How many times the peak is offered.
const TIMES: f64 = 10.0;
/// What is offered before and after, of the peak.
const NORMAL: f64 = 0.5;
/// How soon after the overload every call is served again.
const NORMAL_WITHIN: Duration = Duration::from_secs(10);
const TOKENS: u64 = 4;
/// How long 99 of 100 refusals may take.
const FAST: Duration = Duration::from_millis(50);

/// The most calls that the stack ends well in a second, whatever is asked of it.
async fn peak(scene: &Scene, user: &User, calls_at_once: &[usize], seen: &mut Vec<Seen>) -> f64 {
    let lasts = Duration::from_secs(Size::asked().pick(3, 10));
    let mut peak = 0.0_f64;
    for at_once in calls_at_once {
        let ended = Offered::all_the_time(*at_once, lasts).run(scene, user, TOKENS).await;
        let goodput = ended.goodput();
        screen::say(&format!("{at_once} calls at once: {goodput:.0} calls/s end well"));
        peak = peak.max(goodput);
        seen.extend(ended.seen);
    }
    peak
}

fn show(what: &str, ended: &Paced, peak: f64) {
    let refusals = ended.times(|call| matches!(call.end, End::Refused(_)));
    let served = ended.times(|call| call.end == End::Whole);
    let at = |times: &[Duration], share: f64| times.get((times.len() as f64 * share) as usize).copied();
    screen::say(&format!(
        "{what}: offered {:.0}/s, sent {:.0}/s, goodput {:.0}/s ({:.0} % of the peak); served p50 {:?} p99 {:?}; \
         refused {} p50 {:?} p99 {:?}",
        ended.offered_rate,
        ended.rate(|_| true),
        ended.goodput(),
        100.0 * ended.goodput() / peak,
        at(&served, 0.5),
        at(&served, 0.99),
        refusals.len(),
        at(&refusals, 0.5),
        at(&refusals, 0.99),
    ));
    faults::show(what, &ended.seen);
}

/// Overload, then normal load; what every call got. Gives the goodput in the overload as a share of the peak, and how
/// long refusals took, the fastest first.
async fn overload(scene: &Scene, user: &User, peak: f64, seen: &mut Vec<Seen>) -> (f64, Vec<Duration>) {
    let lasts = Duration::from_secs(Size::asked().pick(6, 60));
    let over = Offered::paced(LANES, TIMES * peak, lasts).run(scene, user, TOKENS).await;
    show("overload", &over, peak);
    let over_since = Instant::now();
    let after =
        Offered::paced(LANES, NORMAL * peak, NORMAL_WITHIN + Duration::from_secs(5)).run(scene, user, TOKENS).await;
    show("after it", &after, peak);
    let last_refused = after.seen.iter().filter(|call| call.end != End::Whole).map(|call| call.started).max();
    let normal_after = last_refused.map_or(Duration::ZERO, |last| last.saturating_duration_since(over_since));
    screen::say(&format!("normal again after {normal_after:?}"));
    let clear = |call: &Seen| call.end == End::Whole || matches!(call.end, End::Refused(429 | 503));
    assert!(over.seen.iter().all(clear), "calls end otherwise than well or with a clear refusal");
    assert!(normal_after <= NORMAL_WITHIN, "calls are refused {normal_after:?} after the overload");
    let ended = (over.goodput() / peak, over.times(|call| matches!(call.end, End::Refused(_))));
    seen.extend(over.seen);
    seen.extend(after.seen);
    ended
}

#[tokio::test]
async fn ten_times_what_the_instances_can_take_leaves_them_at_their_peak_and_loses_no_record() {
    let (mut scene, user) = faults::scene().await;
    let slow = Behaviour { tokens_per_second: 4.0, prefill_ms: 20, ..Behaviour::default() };
    scene.behave(Engine::Vllm, &slow).await;
    let chute = scene.sample(Engine::Vllm);
    let places = chute.instances.len() * chute.concurrency;
    let mut seen = Vec::new();
    let peak = peak(&scene, &user, &[places / 2, places], &mut seen).await;
    let (share, refusals) = overload(&scene, &user, peak, &mut seen).await;
    assert!(!refusals.is_empty(), "nothing was refused: that was no overload");
    let slow = refusals[refusals.len() * 99 / 100];
    // In its small size the proof shares the machine with whatever else is built and tested on it.
    if Size::asked() == Size::Full {
        assert!(share >= 0.9, "{:.0} % of the peak", 100.0 * share);
        assert!(slow <= FAST, "of a hundred refusals one took {slow:?}");
    }
    sleep(Duration::from_secs(1)).await;
    books::balance(&mut scene, &user, &seen).await;
}

#[tokio::test]
async fn ten_times_what_the_processors_can_take_is_refused_and_loses_no_record() {
    // Places that do not run out: then the processors are what is short.
    let (mut scene, user) =
        faults::scene_with(|options| options.text = Capacity { instances: 4, concurrency: 256 }).await;
    let instant = Behaviour { tokens_per_second: 1e9, prefill_ms: 0, ..Behaviour::default() };
    scene.behave(Engine::Vllm, &instant).await;
    let mut seen = Vec::new();
    let peak = peak(&scene, &user, &[4, 16, 64], &mut seen).await;
    let (share, _) = overload(&scene, &user, peak, &mut seen).await;
    screen::say(&format!("{:.0} % of the peak while the processors are the limit", 100.0 * share));
    sleep(Duration::from_secs(1)).await;
    books::balance(&mut scene, &user, &seen).await;
}
