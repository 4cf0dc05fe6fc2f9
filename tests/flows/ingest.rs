//! How fast records that waited on disk get into Postgres, and what each program on their way costs.

use std::fs;
use std::path::Path;
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use protocol::ids::{CallId, ImageId, InvocationId, UserId, WriterId};
use protocol::record::frame;
use protocol::usage::{Admission, Facts, Kind, Outcome, Record};
use sqlx::PgPool;
use stack::cost::processor_time;
use stack::miner::Engine;
use stack::proof::Size;
use stack::{clock, screen};
use tokio::time::{Instant, sleep};

use crate::scene::Scene;

/// Bytes of a segment.
const SEGMENT: usize = 16 << 20;
/// What the platform has to do: the records of ten minutes with 2,000 calls a second in one minute.
const ALLOWED: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(280);
const POLL: Duration = Duration::from_millis(20);

/// A finished stream of the text chute, as a gateway writes it down.
fn record(scene: &Scene, user: UserId, number: u64, started_at: chrono::DateTime<Utc>) -> Record {
    let chute = scene.sample(Engine::Vllm);
    let instance = &chute.instances[number as usize % chute.instances.len()];
    let admission = Admission {
        call: CallId::random(),
        invocation: InvocationId::random(),
        chute: chute.id,
        chute_owner: scene.sample_user(),
        function: "chat_stream".into(),
        image: ImageId::random(),
        image_owner: scene.sample_user(),
        user,
        key: None,
        instance: instance.id,
        miner_uid: 1,
        hotkey: scene.miner(),
        started_at,
        multiplier: 1.0,
        bucket: None,
        bucket_day: None,
        kind: Kind::Stream,
        estimate: 12,
        mean_connections: 1.5,
        steps: 0,
        reroll: false,
    };
    let tokens = number % 40;
    Record {
        outcome: Outcome::Finished,
        completed_at: started_at + TimeDelta::milliseconds(80),
        error: None,
        delivered: true,
        facts: Facts { it: 12, ot: tokens, tokens, ttft: Some(0.020_125), tt: 0.080_25 },
        admission,
    }
}

/// Leaves the log of a gateway that died after so many calls, for the next one to adopt.
fn leave_log(scene: &Scene, records: &Path, user: UserId, calls: u64) -> WriterId {
    let writer = WriterId::random();
    let hidden = records.join(format!(".{writer}"));
    fs::create_dir_all(hidden.join("segments")).unwrap();
    fs::write(hidden.join("lock"), []).unwrap();
    let began = clock::now() - TimeDelta::minutes(10);
    let (mut bytes, mut segments) = (Vec::with_capacity(SEGMENT), 0);
    for number in 1..=calls {
        if bytes.is_empty() {
            frame::encode_opened(number - 1, &mut bytes);
        }
        let record = record(scene, user, number, began + TimeDelta::microseconds(number as i64 * 500));
        frame::encode_admitted(&record.admission, &mut bytes).unwrap();
        frame::encode_final(number, &record, &mut bytes).unwrap();
        if bytes.len() > SEGMENT - frame::MAX_FRAME || number == calls {
            segments += 1;
            fs::write(hidden.join(format!("segments/{segments:010}.log")), &bytes).unwrap();
            bytes.clear();
        }
    }
    fs::rename(&hidden, records.join(writer.to_string())).unwrap();
    writer
}

async fn mark(db: &PgPool, writer: WriterId) -> u64 {
    let text = "select mark from log_writers where writer_id = $1";
    let mark: Option<i64> = sqlx::query_scalar(text).bind(writer.0).fetch_optional(db).await.unwrap();
    mark.unwrap_or_default() as u64
}

/// Until the writer's mark is there.
pub(crate) async fn wait_for_mark(db: &PgPool, writer: WriterId, wanted: u64) {
    let deadline = Instant::now() + LONGEST;
    while mark(db, writer).await < wanted {
        assert!(Instant::now() < deadline, "{} of {wanted} records are in Postgres", mark(db, writer).await);
        sleep(POLL).await;
    }
}

/// Processor time of each program so far.
fn used(scene: &mut Scene) -> [(&'static str, Duration); 4] {
    let [worker, _] = scene.platform.control.processes();
    let worker = worker.pid();
    let pids = [
        ("shipper", scene.platform.gateways[0].process().pid()),
        ("redis", scene.platform.redis.process().pid()),
        ("ingester", worker),
        ("postgres", scene.platform.postgres.process().pid()),
    ];
    pids.map(|(name, pid)| (name, processor_time(pid).unwrap()))
}

#[tokio::test]
async fn the_records_of_ten_minutes_are_in_postgres_within_one() {
    let calls: u64 = Size::asked().pick(5_000, 1_200_000);
    let mut scene = Scene::start().await;
    let user: UserId = scene.unlimited_user("load", &[]).await.id.parse().unwrap();
    scene.platform.gateways[0].stop().await.unwrap();
    let writer = leave_log(&scene, &scene.platform.folder.join("records"), user, calls);
    scene.platform.gateways[0].start_again(&scene.platform.spawner).await.unwrap();
    wait_for_mark(&scene.db, writer, 1).await;
    let (began, before) = (Instant::now(), used(&mut scene));
    let from = mark(&scene.db, writer).await;
    wait_for_mark(&scene.db, writer, calls).await;
    let (took, rows) = (began.elapsed(), (calls - from) as f64);
    screen::say(&format!("{rows} records in {took:.1?}: {:.0} a second", rows / took.as_secs_f64()));
    for ((name, before), (_, after)) in before.into_iter().zip(used(&mut scene)) {
        screen::say(&format!("  {name}: {:.1} µs of a core for each", (after - before).as_secs_f64() * 1e6 / rows));
    }
    let text = "select count(*) from invocations where user_id = $1";
    let stored: i64 = sqlx::query_scalar(text).bind(user.0).fetch_one(&scene.db).await.unwrap();
    assert_eq!(stored as u64, calls);
    let longest = Size::asked().pick(LONGEST, ALLOWED);
    assert!(took <= longest, "{calls} records took {took:?}");
}
