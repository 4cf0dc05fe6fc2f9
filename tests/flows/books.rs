//! Compares what clients counted with Postgres, and Postgres with the public export.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::postgres::PgRow;
use sqlx::{FromRow, PgPool, Row as _};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::load::{End, Seen};
use crate::scene::{Scene, User};

/// The log of a killed gateway is found within ten seconds; what Redis lost is sent again after thirty.
const LONGEST: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(200);
/// Time in which a second row would come, if there was one.
const SETTLED: Duration = Duration::from_secs(2);
/// Past the end of the current hour and the time that late writers have.
const PAST_THE_HOUR: i64 = 2 * 3600;
/// Most tokens in one relay write of a paced stream: chunks that arrived while the gateway waited for a processor.
const ONE_WRITE: u64 = 8;

/// A row that counts as a call: its client got something.
#[derive(Debug, sqlx::FromRow)]
struct Attempt {
    parent_invocation_id: Uuid,
    outcome: String,
    metrics: Option<Value>,
}

impl Attempt {
    fn tokens(&self) -> u64 {
        let number = self.metrics.as_ref().and_then(|metrics| metrics["ot"].as_f64());
        number.unwrap_or_else(|| panic!("no tokens in {self:?}")) as u64
    }
}

/// Fails unless each call of the user is in Postgres once, as its client saw it, and in the export once.
pub(crate) async fn balance(scene: &mut Scene, user: &User, seen: &[Seen]) {
    let expected = seen.iter().filter(|call| answered(call)).count();
    assert!(expected > 0, "nothing was answered: {seen:?}");
    let user: Uuid = user.id.parse().unwrap();
    let rows = settled(&scene.db, user, expected).await;
    compare_calls(seen, &rows);
    compare_attempts(scene).await;
    scene.platform.control.advance_clock(PAST_THE_HOUR, &scene.platform.spawner).await.unwrap();
    compare_export(scene).await;
}

fn answered(call: &Seen) -> bool {
    matches!(call.end, End::Whole | End::Told | End::Cut) && call.tokens > 0
}

/// The user's delivered rows, once there are enough and no more come.
async fn settled(db: &PgPool, user: Uuid, expected: usize) -> Vec<Attempt> {
    let deadline = Instant::now() + LONGEST;
    while count(db, user).await < expected {
        assert!(Instant::now() < deadline, "{} of {expected} calls are in Postgres", count(db, user).await);
        sleep(POLL).await;
    }
    sleep(SETTLED).await;
    read(db, user).await
}

/// The user's delivered rows so far.
pub(crate) async fn count(db: &PgPool, user: Uuid) -> usize {
    let text = "select count(*) from invocations where user_id = $1 and delivered";
    let count: i64 = sqlx::query_scalar(text).bind(user).fetch_one(db).await.unwrap();
    count as usize
}

async fn read(db: &PgPool, user: Uuid) -> Vec<Attempt> {
    let text = "select parent_invocation_id, outcome, metrics from invocations where user_id = $1 and delivered";
    sqlx::query_as(text).bind(user).fetch_all(db).await.unwrap()
}

/// What any instance was asked is an attempt with a row, however it ended; of an instance that died nobody knows.
async fn compare_attempts(scene: &Scene) {
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

fn compare_calls(seen: &[Seen], rows: &[Attempt]) {
    let mut by_call: BTreeMap<Uuid, &Attempt> = BTreeMap::new();
    for row in rows {
        assert!(by_call.insert(row.parent_invocation_id, row).is_none(), "counted twice: {row:?}");
    }
    for call in seen.iter().filter(|call| answered(call)) {
        let id = call.call.expect("an answered call has its id");
        let row = by_call.remove(&id).unwrap_or_else(|| panic!("lost: {call:?}"));
        assert!(agrees(call, row), "{call:?} is recorded as {row:?}");
    }
    // What is left began to be sent while its client was cut off: recorded, not seen.
    let unseen = seen.iter().filter(|call| !answered(call) && !matches!(call.end, End::Refused(_))).count();
    assert!(by_call.len() <= unseen, "nobody made these calls: {by_call:?}");
}

/// To the token where the client saw how it ended; within one relay write where the gateway died.
fn agrees(call: &Seen, row: &Attempt) -> bool {
    match call.end {
        // A gateway that dies after the last byte has no time to write down that it was the last.
        End::Whole => ["finished", "lost"].contains(&row.outcome.as_str()) && row.tokens() == call.tokens,
        End::Told => row.outcome == "failed" && row.tokens() == call.tokens,
        End::Cut => row.outcome == "lost" && (call.tokens..=call.tokens + ONE_WRITE).contains(&row.tokens()),
        End::Refused(_) | End::Nothing => false,
    }
}

/// What the public must be able to read of an attempt.
#[derive(Debug, PartialEq, sqlx::FromRow)]
struct Entry {
    export_hour: DateTime<Utc>,
    error_message: Option<String>,
    /// Of text: its tokens and all that is computed of them.
    metrics: Option<Value>,
}

/// Each row of Postgres is in the file of its hour, once and with the same content, and the files hold nothing else.
async fn compare_export(scene: &Scene) {
    let mut rows = entries(&scene.db).await;
    let hours: BTreeSet<DateTime<Utc>> = rows.values().map(|entry| entry.export_hour).collect();
    for hour in hours {
        for (id, exported) in entries_in(&file(scene, hour).await, hour) {
            let row = rows.remove(&id).unwrap_or_else(|| panic!("exported twice or for nothing: {id} {exported:?}"));
            assert_eq!(exported, row, "{id} differs between the export and Postgres");
        }
    }
    assert!(rows.is_empty(), "not exported: {rows:?}");
}

async fn entries(db: &PgPool) -> BTreeMap<Uuid, Entry> {
    let text = "select invocation_id, export_hour, error_message, metrics from invocations";
    let rows = sqlx::query(text).fetch_all(db).await.unwrap();
    let all = rows.len();
    let entry = |row: PgRow| {
        let mut entry = Entry::from_row(&row).unwrap();
        entry.metrics = entry.metrics.map(|metrics| comparable(&metrics));
        (row.get("invocation_id"), entry)
    };
    let entries: BTreeMap<Uuid, Entry> = rows.into_iter().map(entry).collect();
    assert_eq!(entries.len(), all, "an attempt has two rows");
    entries
}

/// The public file of an hour, once it is there.
async fn file(scene: &Scene, hour: DateTime<Utc>) -> String {
    let url = format!("{}{}", scene.url("api"), hour.format("/invocations/exports/%Y/%m/%d/%H.csv"));
    let deadline = Instant::now() + LONGEST;
    loop {
        let answer = scene.client().get(&url).timeout(LONGEST).send().await.unwrap();
        let status = answer.status();
        if status.is_success() {
            return answer.text().await.unwrap();
        }
        assert!(Instant::now() < deadline, "{url}: {status}");
        sleep(POLL).await;
    }
}

fn entries_in(text: &str, hour: DateTime<Utc>) -> Vec<(Uuid, Entry)> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let headers = reader.headers().unwrap().clone();
    let column = |wanted: &str| headers.iter().position(|name| name == wanted).unwrap();
    let (id, error, metrics) = (column("invocation_id"), column("error_message"), column("metrics"));
    let entry = |record: csv::Result<csv::StringRecord>| {
        let record = record.unwrap();
        let filled = |column: usize| Some(&record[column]).filter(|text| !text.is_empty());
        let error_message = filled(error).map(str::to_owned);
        let metrics = filled(metrics).map(|text| comparable(&of_python(text)));
        (record[id].parse().unwrap(), Entry { export_hour: hour, error_message, metrics })
    };
    reader.records().map(entry).collect()
}

/// A Python literal of numbers, `None`, `True` and `False` under names: there is no other text in it.
fn of_python(text: &str) -> Value {
    let json = text.replace('\'', "\"").replace("None", "null").replace("True", "true").replace("False", "false");
    serde_json::from_str(&json).unwrap_or_else(|error| panic!("{error} in {text}"))
}

/// The same with all numbers as floats: one place writes 3, the other 3.0.
fn comparable(metrics: &Value) -> Value {
    let number = |value: &Value| value.as_f64().map_or_else(|| value.clone(), Value::from);
    metrics.as_object().unwrap().iter().map(|(name, value)| (name.clone(), number(value))).collect()
}
