//! The public routes of the record, through the real router.

use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode, header};
use chrono::TimeDelta;
use control::clock::Clock;
use control::http;
use control::state::State;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use protocol::ids::WriterId;
use protocol::usage::{Outcome, Record};
use sha2::{Digest as _, Sha256};

use crate::ledger::{Ledger, at, attempt, beat, entry};

/// What a route answered.
struct Answer {
    status: StatusCode,
    content_type: String,
    disposition: String,
    tag: String,
    text: String,
}

async fn get(ledger: &Ledger, path: &str) -> Answer {
    let metrics = std::sync::Arc::clone(&ledger.metrics);
    let state = State { db: ledger.database.pool.clone(), clock: Clock::default(), metrics };
    let router = TowerToHyperService::new(http::public(state, ledger.store.client()));
    let answer = router.call(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
    let header = |name| answer.headers().get(&name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
    let (content_type, disposition) = (header(header::CONTENT_TYPE), header(header::CONTENT_DISPOSITION));
    let (status, tag) = (answer.status(), header(header::ETAG));
    let text = String::from_utf8(to_bytes(answer.into_body(), 1 << 20).await.unwrap().to_vec()).unwrap();
    Answer { status, content_type, disposition, tag, text }
}

async fn exported() -> Ledger {
    let ledger = Ledger::new().await;
    let writer = WriterId::random();
    ledger.send(&[entry(writer, 1, attempt(1, at("03:10:00"))), beat(writer, at("04:00:00"), 1, true)]);
    ledger.ingest(at("04:00:01")).await;
    ledger.export(at("04:00:02")).await;
    ledger
}

#[tokio::test]
async fn an_hourly_file_is_served_as_it_was_written() {
    let ledger = exported().await;
    for path in ["/invocations/exports/2026/01/02/04.csv", "/invocations/exports/2026/1/2/4.csv"] {
        let answer = get(&ledger, path).await;
        assert_eq!((answer.status, answer.content_type.as_str()), (StatusCode::OK, "text/csv"));
        assert_eq!(answer.disposition, "attachment; filename=\"2026-01-02-04.csv\"");
        assert_eq!(answer.text, ledger.file("invocations/2026/01/02/04.csv"));
        assert_eq!(answer.tag, format!("\"{}\"", hex::encode(Sha256::digest(&answer.text))));
    }
    for kind in ["reports", "jobs"] {
        let answer = get(&ledger, &format!("/invocations/exports/2026/01/02/04-{kind}.csv")).await;
        assert_eq!(answer.disposition, format!("attachment; filename=\"2026-01-02-04-{kind}.csv\""));
        assert_eq!(answer.text, ledger.file(&format!("invocations/2026/01/02/04-{kind}.csv")));
    }
}

#[tokio::test]
async fn c19_dates_that_do_not_exist_and_hours_without_a_file_are_not_found() {
    let ledger = exported().await;
    for path in [
        "2026/02/30/04",
        "2026/13/01/04",
        "2026/01/02/24",
        "2026/01/02/05",
        "2024/12/13/23",
        "2999/01/01/00",
        "x/01/02/04",
    ] {
        let answer = get(&ledger, &format!("/invocations/exports/{path}.csv")).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
        assert!(answer.text.starts_with("{\"detail\":\"Invocations export not found year="), "{}", answer.text);
    }
    let answer = get(&ledger, "/invocations/exports/2026/02/30/04.csv").await;
    assert_eq!(answer.text, "{\"detail\":\"Invocations export not found year=2026 month=02 day=30 hour=04\"}");
}

#[tokio::test]
async fn a_file_name_that_is_none_is_a_bad_request() {
    let ledger = exported().await;
    let answer = get(&ledger, "/invocations/exports/2026/01/02/04-other.csv").await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert_eq!(answer.text, "{\"detail\":\"Invalid format: 04-other.csv\"}");
}

#[tokio::test]
async fn paid_attempts_of_the_last_day_are_listed_newest_first() {
    let ledger = Ledger::new().await;
    let now = Clock::default().now();
    let writer = WriterId::random();
    let ended = |number, hours| attempt(number, now - TimeDelta::hours(hours));
    let failed = Record { outcome: Outcome::Failed, ..ended(4, 1) };
    let records = [ended(1, 3), ended(2, 2), ended(3, 30), failed];
    let entries: Vec<_> = (1..).zip(records).map(|(sequence, record)| entry(writer, sequence, record)).collect();
    ledger.send(&entries);
    ledger.ingest(now).await;
    let answer = get(&ledger, "/invocations/exports/recent").await;
    assert_eq!((answer.status, answer.content_type.as_str()), (StatusCode::OK, "text/csv"));
    assert_eq!(answer.disposition, "attachment; filename=\"recent.csv\"");
    let lines: Vec<&str> = answer.text.split("\r\n").collect();
    assert!(lines[0].starts_with("invocation_id,chute_id,"));
    let numbers: Vec<&str> =
        lines[1..].iter().filter_map(|line| line.split(',').next()?.chars().last().map(|_| &line[35..36])).collect();
    assert_eq!(numbers, ["2", "1"]);
    let counted = async |query: &str| {
        get(&ledger, &format!("/invocations/exports/recent?{query}")).await.text.lines().count() - 1
    };
    assert_eq!(counted("limit=1").await, 1);
    assert_eq!(counted("limit=99999").await, 2);
    assert_eq!(counted("hotkey=5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY").await, 2);
    assert_eq!(counted("hotkey=5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty").await, 0);
    assert_eq!(get(&ledger, "/invocations/exports/recent?limit=x").await.status, StatusCode::BAD_REQUEST);
}
