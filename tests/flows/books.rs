//! Compares what clients counted with Postgres, and Postgres with the public export.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgPool;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::load::{End, Seen};
use crate::scene::{Scene, User};

const LONGEST: Duration = Duration::from_secs(45);
const POLL: Duration = Duration::from_millis(200);
/// Time in which a second row would come, if there was one.
const SETTLED: Duration = Duration::from_secs(2);
/// Past the end of the current hour and the time that late writers have.
const PAST_THE_HOUR: i64 = 2 * 3600;
/// Tokens in one relay write: chunks that arrived while the last one was written.
const ONE_WRITE: u64 = 3;

/// A row that counts as a call: its client got something.
#[derive(Debug, sqlx::FromRow)]
struct Row {
    parent_invocation_id: Uuid,
    outcome: String,
    metrics: Option<Value>,
}

impl Row {
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
    scene.platform.control.advance_clock(PAST_THE_HOUR, &scene.platform.spawner).await.unwrap();
    compare_export(scene).await;
}

fn answered(call: &Seen) -> bool {
    matches!(call.end, End::Whole | End::Cut) && call.tokens > 0
}

/// The user's delivered rows, once there are enough and no more come.
async fn settled(db: &PgPool, user: Uuid, expected: usize) -> Vec<Row> {
    let deadline = Instant::now() + LONGEST;
    loop {
        let rows = read(db, user).await;
        if rows.len() >= expected {
            break;
        }
        assert!(Instant::now() < deadline, "{} of {expected} calls are in Postgres", rows.len());
        sleep(POLL).await;
    }
    sleep(SETTLED).await;
    read(db, user).await
}

async fn read(db: &PgPool, user: Uuid) -> Vec<Row> {
    let text = "select parent_invocation_id, outcome, metrics from invocations where user_id = $1 and delivered";
    sqlx::query_as(text).bind(user).fetch_all(db).await.unwrap()
}

fn compare_calls(seen: &[Seen], rows: &[Row]) {
    let mut by_call: BTreeMap<Uuid, &Row> = BTreeMap::new();
    for row in rows {
        assert!(by_call.insert(row.parent_invocation_id, row).is_none(), "counted twice: {row:?}");
    }
    for call in seen.iter().filter(|call| answered(call)) {
        let id = call.call.expect("an answered call has its id");
        let row = by_call.remove(&id).unwrap_or_else(|| panic!("lost: {call:?}"));
        if call.end == End::Whole {
            assert_eq!((row.outcome.as_str(), row.tokens()), ("finished", call.tokens), "{call:?}");
        } else {
            assert_ne!(row.outcome, "finished", "{call:?}");
            let recorded = row.tokens();
            let within = (call.tokens..=call.tokens + ONE_WRITE).contains(&recorded);
            assert!(within, "recorded {recorded} tokens of {call:?}");
        }
    }
    // What is left began to be sent while its client was cut off: recorded, not seen.
    let unseen = seen.iter().filter(|call| !answered(call) && !matches!(call.end, End::Refused(_))).count();
    assert!(by_call.len() <= unseen, "nobody made these calls: {by_call:?}");
}

/// Each row of Postgres is in the file of its hour, once, and the files hold nothing else.
async fn compare_export(scene: &Scene) {
    let text = "select invocation_id, export_hour from invocations";
    let rows: Vec<(Uuid, DateTime<Utc>)> = sqlx::query_as(text).fetch_all(&scene.db).await.unwrap();
    let hours: BTreeSet<DateTime<Utc>> = rows.iter().map(|(_, hour)| *hour).collect();
    let mut exported = Vec::new();
    for hour in hours {
        exported.extend(invocations_in(&file(scene, hour).await).into_iter().map(|id| (id, hour)));
    }
    exported.sort();
    let mut rows = rows;
    rows.sort();
    assert_eq!(exported, rows, "the export differs from Postgres");
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

fn invocations_in(text: &str) -> Vec<Uuid> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let column = reader.headers().unwrap().iter().position(|name| name == "invocation_id").unwrap();
    reader.records().map(|record| record.unwrap()[column].parse().unwrap()).collect()
}
