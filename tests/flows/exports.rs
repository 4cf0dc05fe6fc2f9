//! Two workers and the files of many hours: one is killed in the middle, the other goes on, each file is right.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};
use sqlx::{PgPool, Postgres, Transaction};
use stack::store::BUCKET;
use tokio::time::{Instant, sleep};

use crate::faults::{scene, show};
use crate::load::Load;
use crate::scene::Scene;
use crate::{books, faults};

const CLIENTS: u64 = 6;
const SEED: u64 = 68;
const LONGEST: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(100);
/// Hours that two workers race for.
const HOURS: i64 = 6;
/// Files that are written before one of the two dies.
const BEFORE_THE_KILL: usize = 5;

/// A file as control remembers it.
#[derive(Debug, sqlx::FromRow)]
struct Written {
    hour: DateTime<Utc>,
    kind: String,
    sha256: String,
    rows: i64,
}

/// Keeps both workers from saying that a file is written, until it is dropped or committed.
async fn hold(db: &PgPool) -> Transaction<'static, Postgres> {
    let mut transaction = db.begin().await.unwrap();
    sqlx::query("lock table exports in share mode").execute(&mut *transaction).await.unwrap();
    transaction
}

async fn written(db: &PgPool) -> Vec<Written> {
    let text = "select hour, kind, sha256, rows from exports order by hour, kind";
    sqlx::query_as(text).fetch_all(db).await.unwrap()
}

/// Whether the worker with this internal listener is the one that exports.
async fn is_on_duty(scene: &Scene, internal_url: &str) -> bool {
    let credential = &scene.platform.secrets.internal;
    let metrics = scene.client().get(format!("{internal_url}/metrics")).bearer_auth(credential);
    let text = metrics.timeout(LONGEST).send().await.unwrap().error_for_status().unwrap().text().await.unwrap();
    text.lines().any(|line| line == "chutes_control_duty_held{duty=\"export_hour\"} 1")
}

/// Which of both workers exports, the first or the second.
async fn on_duty(scene: &Scene, urls: &[String; 2]) -> usize {
    let deadline = Instant::now() + LONGEST;
    loop {
        match [is_on_duty(scene, &urls[0]).await, is_on_duty(scene, &urls[1]).await] {
            [true, false] => return 0,
            [false, true] => return 1,
            [first, second] => assert_eq!((first, second), (false, false), "both are on duty"),
        }
        assert!(Instant::now() < deadline, "nobody is on duty");
        sleep(POLL).await;
    }
}

/// Lets files be written one by one, until there are some but not all.
async fn write_some(db: &PgPool) -> Transaction<'static, Postgres> {
    let deadline = Instant::now() + LONGEST;
    let mut held = hold(db).await;
    while written(db).await.len() < BEFORE_THE_KILL {
        assert!(Instant::now() < deadline, "no worker writes files");
        held.commit().await.unwrap();
        sleep(Duration::from_millis(1)).await;
        held = hold(db).await;
    }
    held
}

/// All files of the hours that are over, once they are there.
async fn all_written(db: &PgPool) -> Vec<Written> {
    let deadline = Instant::now() + LONGEST;
    loop {
        let text = "select count(*) from export_hours where closed_at is not null";
        let closed: i64 = sqlx::query_scalar(text).fetch_one(db).await.unwrap();
        let files = written(db).await;
        if closed >= HOURS - 1 && files.len() as i64 == 3 * closed {
            return files;
        }
        assert!(Instant::now() < deadline, "{} files of {closed} hours are written", files.len());
        sleep(POLL).await;
    }
}

/// Each object is what control says it is, and the hours' rows are those of Postgres.
async fn compare(scene: &Scene, files: &[Written]) {
    for file in files {
        let suffix = if file.kind == "invocations" { String::new() } else { format!("-{}", file.kind) };
        let key = format!("{}{suffix}.csv", file.hour.format("invocations/%Y/%m/%d/%H"));
        let bytes = std::fs::read(scene.platform.folder.join("store").join(BUCKET).join(&key)).unwrap();
        assert_eq!(hex::encode(Sha256::digest(&bytes)), file.sha256, "{key}");
        assert_eq!(csv::Reader::from_reader(&*bytes).records().count() as i64, file.rows, "{key}");
        let expected: i64 = match file.kind.as_str() {
            "invocations" => {
                let text = "select count(*) from invocations where export_hour = $1";
                sqlx::query_scalar(text).bind(file.hour).fetch_one(&scene.db).await.unwrap()
            }
            _ => 0,
        };
        assert_eq!(file.rows, expected, "{key}");
    }
    let rows: i64 = files.iter().map(|file| file.rows).sum();
    assert_eq!(rows, faults::count(&scene.db).await, "rows are in no file");
    let hours: BTreeSet<DateTime<Utc>> = files.iter().map(|file| file.hour).collect();
    let (first, last) = (hours.first().unwrap(), hours.last().unwrap());
    assert_eq!((*last - *first).num_hours() + 1, hours.len() as i64, "an hour is missing");
}

#[tokio::test]
async fn of_two_workers_the_second_finishes_the_hours_in_whose_middle_the_first_was_killed() {
    let (mut scene, user) = scene().await;
    let load = Load::start(&scene, &user, CLIENTS, SEED);
    sleep(Duration::from_secs(2)).await;
    let seen = load.stop().await;
    show("two workers", &seen);
    let held = hold(&scene.db).await;
    let later = HOURS * 3600;
    let control = &mut scene.platform.control;
    let mut second = control.second_worker(later, &scene.platform.spawner).await.unwrap();
    control.advance_clock(later, &scene.platform.spawner).await.unwrap();
    let urls = [control.worker_internal_url(), control.second_worker_internal_url()];

    // Both are ready, and no file is written yet.
    let killed = on_duty(&scene, &urls).await;
    assert_eq!(written(&scene.db).await.len(), 0);
    held.commit().await.unwrap();
    let held = write_some(&scene.db).await;
    let before = written(&scene.db).await.len();
    assert_eq!(on_duty(&scene, &urls).await, killed);
    let [first, _] = scene.platform.control.processes();
    let (dying, other) = if killed == 0 { (first, &mut second) } else { (&mut second, first) };
    dying.kill().unwrap();
    held.commit().await.unwrap();

    let files = all_written(&scene.db).await;
    assert!(before < files.len(), "the first had written everything");
    assert!(other.ended().unwrap().is_none(), "the other worker did not take part to the end");
    assert!(is_on_duty(&scene, &urls[1 - killed]).await, "nobody took over");
    compare(&scene, &files).await;
    books::balance(&mut scene, &user, &seen).await;
}
