//! Compares what clients saw with Postgres, Postgres with what was counted of it, and with the public export.

mod calls;
mod counts;
mod export;

use std::time::Duration;

use sqlx::PgPool;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::load::{End, Seen};
use crate::scene::{Scene, User};
use calls::Delivered;
pub(crate) use counts::compare as compare_counts;

/// The log of a killed gateway is found within ten seconds; what Redis lost is sent again after thirty.
const LONGEST: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(200);
/// Time in which a second row would come, if there was one.
const SETTLED: Duration = Duration::from_secs(2);
/// Past the end of the current hour and the time that late writers have.
const PAST_THE_HOUR: i64 = 2 * 3600;

/// Fails unless each call of the user is in Postgres once, as its client saw it, is counted once, and is in the export
/// once.
pub(crate) async fn balance(scene: &mut Scene, user: &User, seen: &[Seen]) {
    let expected = seen.iter().filter(|call| answered(call)).count();
    assert!(expected > 0, "nothing was answered: {seen:?}");
    let user: Uuid = user.id.parse().unwrap();
    wait_for_attempts(scene).await;
    let rows = settled(&scene.db, user, expected, seen).await;
    calls::compare(seen, rows);
    counts::compare(&scene.db).await;
    scene.platform.control.advance_clock(PAST_THE_HOUR, &scene.platform.spawner).await.unwrap();
    export::compare(scene).await;
}

fn answered(call: &Seen) -> bool {
    matches!(call.end, End::Whole | End::Told | End::Cut) && call.tokens > 0
}

/// What any instance was asked is an attempt with a row, however it ended; of an instance that died nobody knows.
async fn wait_for_attempts(scene: &Scene) {
    let mut asked = 0;
    for chute in &scene.platform.sample.chutes {
        for instance in &chute.instances {
            asked += scene.platform.miner.counters(instance.port).await.map_or(0, |counters| counters.accepted);
        }
    }
    let deadline = Instant::now() + LONGEST;
    loop {
        let rows: i64 = sqlx::query_scalar("select count(*) from invocations").fetch_one(&scene.db).await.unwrap();
        if rows as u64 >= asked {
            return;
        }
        assert!(Instant::now() < deadline, "instances were asked {asked} times, of which {rows} are recorded");
        sleep(POLL).await;
    }
}

/// The user's delivered rows, once those of all answered calls are there and no more come.
async fn settled(db: &PgPool, user: Uuid, expected: usize, seen: &[Seen]) -> Vec<Delivered> {
    let deadline = Instant::now() + LONGEST;
    loop {
        let there = count(db, user).await;
        if there >= expected {
            let missing = calls::missing(seen, &calls::read(db, user).await);
            if missing == 0 {
                break;
            }
            assert!(Instant::now() < deadline, "lost: {missing} calls of {expected} are not among {there} rows");
        }
        assert!(Instant::now() < deadline, "{there} of {expected} calls are in Postgres");
        sleep(POLL).await;
    }
    sleep(SETTLED).await;
    calls::read(db, user).await
}

/// The user's delivered rows so far.
pub(crate) async fn count(db: &PgPool, user: Uuid) -> usize {
    let text = "select count(*) from invocations where user_id = $1 and delivered";
    let count: i64 = sqlx::query_scalar(text).bind(user).fetch_one(db).await.unwrap();
    count as usize
}
