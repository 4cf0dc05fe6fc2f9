//! Compares Postgres with the public export.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::postgres::PgRow;
use sqlx::{FromRow, PgPool, Row as _};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::{LONGEST, POLL};
use crate::scene::Scene;

/// What the public must be able to read of an attempt.
#[derive(Debug, PartialEq, sqlx::FromRow)]
struct Entry {
    export_hour: DateTime<Utc>,
    error_message: Option<String>,
    /// Of text: its tokens and all that is computed of them.
    metrics: Option<Value>,
}

/// Each row of Postgres is in the file of its hour, once and with the same content, and the files hold nothing else.
pub(super) async fn compare(scene: &Scene) {
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
