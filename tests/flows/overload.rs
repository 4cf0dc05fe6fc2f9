//! Ten times the load that the stack can take: what it takes is still served, the rest is told so at once.
//!
//! The first stack is at its end because its instances are, which is how an overload looks where models run. The second
//! has instances that answer at once, so that the processors of the machine, which the driver shares, are the limit: it
//! says how much more than the peak the driver could ask for, and shows that nothing is lost and that it ends.

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

/// Connections of all clients together.
const LANES: usize = 1000;
/// The same where every one of them waits for the processor.
const LANES_WAITING: usize = 6000;
/// How many times the peak is offered.
const TIMES: f64 = 10.0;
/// What is offered before and after, of the peak.
const NORMAL: f64 = 0.5;
/// How soon after the overload every call is served again, and how long that is looked at.
const NORMAL_WITHIN: Duration = Duration::from_secs(10);
const NORMAL_FOR: Duration = Duration::from_secs(5);
/// How much of what is offered ends well in each second then.
const GOOD: f64 = 0.9;
const TOKENS: u64 = 4;
/// Time until as many calls end as begin.
const WARM_UP: Duration = Duration::from_secs(2);
/// How long 99 of 100 refusals may take.
const FAST: Duration = Duration::from_millis(50);

/// The most calls that the stack ends well in a second, whatever is asked of it.
async fn peak(scene: &Scene, user: &User, calls_at_once: &[usize], seen: &mut Vec<Seen>) -> f64 {
    let lasts = Duration::from_secs(Size::asked().pick(3, 10));
    let mut peak = 0.0_f64;
    for at_once in calls_at_once {
        let ended = Offered::all_the_time(*at_once, WARM_UP + lasts).run(scene, user, TOKENS).await;
        let goodput = ended.goodput_within(ended.ends() - lasts, lasts);
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
        ended.sent(),
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

/// Overload, then normal load, which is served as ever soon; what became of both.
async fn overload(scene: &Scene, user: &User, peak: f64, lanes: usize) -> (Paced, Paced) {
    let lasts = Duration::from_secs(Size::asked().pick(6, 60));
    let over = Offered::paced(lanes, TIMES * peak, lasts).run(scene, user, TOKENS).await;
    show("overload", &over, peak);
    let clear = |call: &Seen| call.end == End::Whole || matches!(call.end, End::Refused(429 | 503));
    assert!(over.seen.iter().all(clear), "calls end otherwise than well or with a clear refusal");
    let normal_from = over.ends() + NORMAL_WITHIN;
    let lasts = (normal_from + NORMAL_FOR).saturating_duration_since(Instant::now());
    assert!(lasts > NORMAL_FOR, "calls of the overload are still not answered after {NORMAL_WITHIN:?}");
    let after = Offered::paced(LANES, NORMAL * peak, lasts).run(scene, user, TOKENS).await;
    show("after it", &after, peak);
    let last_unserved = after.unserved().max().unwrap_or(over.ends());
    screen::say(&format!("normal again after {:?}", last_unserved.saturating_duration_since(over.ends())));
    assert!(last_unserved <= normal_from, "calls are not served {NORMAL_WITHIN:?} after the overload");
    assert_served_well(&after, normal_from);
    (over, after)
}

/// Fails unless calls end as fast as they are offered, and each soon, from some moment on.
fn assert_served_well(load: &Paced, from: Instant) {
    // In its small size the proof shares the machine with whatever else is built and tested on it.
    let at_a_time = Size::asked().pick(NORMAL_FOR, Duration::from_secs(1));
    let soon = Duration::from_secs(Size::asked().pick(5, 2));
    let mut since = from;
    while since < from + NORMAL_FOR {
        let goodput = load.goodput_within(since, at_a_time);
        screen::say(&format!("{goodput:.0} calls/s of {:.0} end well {:?} later", load.offered_rate, since - from));
        assert!(goodput >= GOOD * load.offered_rate, "{goodput:.0} calls/s end well of {:.0}", load.offered_rate);
        since += at_a_time;
    }
    let times = load.times(|call| call.started >= from);
    let slow = times[times.len() * 99 / 100];
    assert!(slow <= soon, "of a hundred calls one takes {slow:?}");
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
    let (over, after) = overload(&scene, &user, peak, LANES).await;
    let (times, share) = (over.sent() / peak, over.goodput() / peak);
    assert!(
        times >= Size::asked().pick(0.3, 0.9) * TIMES,
        "{times:.1} times the peak was asked for: that is no overload"
    );
    let refusals = over.times(|call| matches!(call.end, End::Refused(_)));
    assert!(!refusals.is_empty(), "nothing was refused");
    let slow = refusals[refusals.len() * 99 / 100];
    // As above, of a machine that does something else too.
    if Size::asked() == Size::Full {
        assert!(share >= GOOD, "{:.0} % of the peak", 100.0 * share);
        assert!(slow <= FAST, "of a hundred refusals one took {slow:?}");
    }
    seen.extend([over.seen, after.seen].concat());
    sleep(Duration::from_secs(1)).await;
    books::balance(&mut scene, &user, &seen).await;
}

#[tokio::test]
async fn more_than_the_processors_can_take_is_mostly_served_and_loses_no_record() {
    // Places that do not run out: then the processors are what is short.
    let (mut scene, user) =
        faults::scene_with(|options| options.text = Capacity { instances: 4, concurrency: 256 }).await;
    let instant = Behaviour { tokens_per_second: 1e9, prefill_ms: 0, ..Behaviour::default() };
    scene.behave(Engine::Vllm, &instant).await;
    let mut seen = Vec::new();
    let peak = peak(&scene, &user, &[4, 16, 64], &mut seen).await;
    let (over, after) = overload(&scene, &user, peak, Size::asked().pick(LANES, LANES_WAITING)).await;
    let (times, share) = (over.sent() / peak, over.goodput() / peak);
    let refused = over.times(|call| matches!(call.end, End::Refused(_))).len();
    screen::say(&format!(
        "where the driver shares the processors that are the limit it could ask for {times:.1} times the peak, not for \
         {TIMES}; {:.0} % of the peak ended well, {refused} calls were refused",
        100.0 * share,
    ));
    let least = Size::asked().pick(0.2, 0.8);
    assert!(share >= least, "{:.0} % of the peak", 100.0 * share);
    seen.extend([over.seen, after.seen].concat());
    sleep(Duration::from_secs(1)).await;
    books::balance(&mut scene, &user, &seen).await;
}
