//! Redis away for long under load: gateways go on, do not grow, and Postgres has everything soon after it is back.

use std::pin::pin;
use std::time::Duration;

use stack::cost::{own_memory, processor_time};
use stack::miner::{Behaviour, Engine};
use stack::proof::Size;
use stack::screen;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::{show, wait_until_known};
use crate::books;
use crate::load::End;
use crate::rush::{Pace, Rush};
use crate::scene::{Scene, User};

/// Longer than Redis is away.
const STALE_AFTER: &str = "900";
/// A machine that is busy with something else sheds no load here.
const MAX_LAG: &str = "60";
/// Permission bits of a free account without limits.
const FREE: &str = "48";
/// How much a gateway may grow while it cannot ship, and while it ships all that has come together.
const GROWTH: u64 = 32 << 20;
/// How soon everything is in Postgres once Redis is back and the load has stopped.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);
/// After it a gateway has what it needs for this load.
const WARM_UP: Duration = Duration::from_secs(3);
const SAMPLE: Duration = Duration::from_millis(250);

/// What came of something, and the most memory that the gateway had meanwhile.
async fn watch_memory<T>(gateway: u32, doing: impl Future<Output = T>) -> (T, u64) {
    let (mut doing, mut most) = (pin!(doing), 0);
    loop {
        most = most.max(own_memory(gateway).unwrap());
        tokio::select! {
            done = &mut doing => return (done, most),
            () = sleep(SAMPLE) => {}
        }
    }
}

/// Processor time of the gateway and of the miner so far.
fn used(scene: &mut Scene) -> [Duration; 2] {
    let platform = &mut scene.platform;
    [platform.gateways[0].process().pid(), platform.miner.process().pid()].map(|pid| processor_time(pid).unwrap())
}

/// Until so many calls are in Postgres; how long after `began` that was.
async fn wait_for_rows(scene: &Scene, user: &User, wanted: usize, began: Instant) -> Duration {
    let user: Uuid = user.id.parse().unwrap();
    let deadline = began + 3 * SETTLED_WITHIN;
    loop {
        let asked = Instant::now();
        let there = books::count(&scene.db, user).await;
        if there >= wanted {
            return began.elapsed();
        }
        assert!(Instant::now() < deadline, "{there} of {wanted} calls are in Postgres");
        // To count is work for Postgres, which has other work to do.
        sleep(SAMPLE.max(asked.elapsed() * 10)).await;
    }
}

/// What is not as it is by default, for those who read the figures.
fn tell(pace: Pace, away: Duration) {
    screen::say(&format!(
        "redis away for {away:?} under {} calls a second, one in {} a stream; no load is shed for lag \
         (GATEWAY_MAX_LAG_SECONDS={MAX_LAG}), callers stay known (GATEWAY_STALE_AFTER={STALE_AFTER})",
        pace.calls_per_second, pace.stream_every
    ));
}

/// Takes ten minutes and some in full size: that is how long Redis is away.
#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_away_for_long_costs_no_call_no_memory_and_no_record() {
    let pace = Pace {
        calls_per_second: Size::asked().pick(50.0, 2000.0),
        connections: Size::asked().pick(8, 64),
        stream_every: 20,
    };
    let away = Duration::from_secs(Size::asked().pick(8, 600));
    let mut scene = Scene::with(|options| {
        options.gateways = 1;
        let settings = [("GATEWAY_STALE_AFTER", STALE_AFTER), ("GATEWAY_MAX_LAG_SECONDS", MAX_LAG)];
        options.gateway_settings.extend(settings.map(|(name, value)| (name.into(), value.into())));
    })
    .await;
    let user = scene.user("free", 1, &["--permissions", FREE]).await;
    wait_until_known(&scene, 0, &user).await;
    let fast = Behaviour { tokens_per_second: 0.0, prefill_ms: 0, ..Behaviour::default() };
    scene.behave(Engine::Vllm, &fast).await;

    tell(pace, away);
    let gateway = scene.platform.gateways[0].process().pid();
    let (began, before) = (Instant::now(), used(&mut scene));
    let rush = Rush::start(&scene, 0, &user, pace);
    let ((), usual) = watch_memory(gateway, sleep(WARM_UP.max(away / 10))).await;
    scene.platform.redis.process().freeze().unwrap();
    let ((), silent) = watch_memory(gateway, sleep(away / 2)).await;
    scene.platform.redis.process().kill().unwrap();
    let ((), gone) = watch_memory(gateway, sleep(away / 2)).await;
    let seen = rush.stop().await;
    let (took, after) = (began.elapsed(), used(&mut scene));
    let answered = seen.iter().filter(|call| call.end == End::Whole).count();
    scene.platform.redis.start_again(&scene.platform.spawner).await.unwrap();
    let settling = wait_for_rows(&scene, &user, answered, Instant::now());
    let (settled, shipping) = watch_memory(gateway, settling).await;

    show("redis away", &seen);
    let rate = answered as f64 / took.as_secs_f64();
    let growth = [silent, gone, shipping].map(|most| most.saturating_sub(usual));
    let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let [while_silent, while_gone, while_shipping] = growth.map(mebibytes);
    screen::say(&format!(
        "{rate:.0} calls a second for {took:.0?}; all in Postgres {settled:.1?} after redis was back; over {:.1} MiB the \
         gateway grew by {while_silent:.1} MiB while redis was silent, {while_gone:.1} MiB while it was gone, \
         {while_shipping:.1} MiB while it shipped",
        mebibytes(usual),
    ));
    for (name, (before, after)) in ["gateway", "miner"].into_iter().zip(before.into_iter().zip(after)) {
        screen::say(&format!(
            "  {name}: {:.0} µs of a core for each",
            (after - before).as_secs_f64() * 1e6 / answered as f64
        ));
    }
    let refused = seen.iter().find(|call| call.end != End::Whole);
    assert!(refused.is_none(), "{refused:?}");
    assert!(growth.iter().all(|growth| *growth <= GROWTH), "the gateway grew by {growth:?} bytes");
    assert!(settled <= SETTLED_WITHIN, "everything was in Postgres only after {settled:?}");
    if Size::asked() == Size::Full {
        assert!(rate >= 0.95 * pace.calls_per_second, "only {rate:.0} calls a second");
    }
    books::balance(&mut scene, &user, &seen).await;
}
