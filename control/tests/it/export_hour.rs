//! Hours close in order, and each has its files once.

use protocol::ids::WriterId;
use sha2::{Digest as _, Sha256};

use crate::ledger::{Ledger, at, attempt, beat, entry};

const FOUR: &str = "invocations/2026/01/02/04.csv";
const FIVE: &str = "invocations/2026/01/02/05.csv";

fn lines(file: &str) -> usize {
    file.lines().count() - 1
}

#[tokio::test]
async fn an_hour_closes_once_every_writer_has_confirmed_it() {
    let ledger = Ledger::new().await;
    let (one, other) = (WriterId::random(), WriterId::random());
    ledger.send(&[entry(one, 1, attempt(1, at("03:10:00"))), beat(one, at("04:00:00"), 1, false)]);
    ledger.send(&[beat(other, at("03:59:59"), 0, false)]);
    ledger.ingest(at("04:00:01")).await;
    ledger.export(at("04:00:02")).await;
    assert_eq!(ledger.store.object(FOUR), None);
    ledger.send(&[beat(other, at("04:00:01"), 0, false)]);
    ledger.ingest(at("04:00:02")).await;
    ledger.export(at("04:00:03")).await;
    assert_eq!(lines(&ledger.file(FOUR)), 1);
    assert_eq!(lines(&ledger.file("invocations/2026/01/02/04-reports.csv")), 0);
    assert!(ledger.file("invocations/2026/01/02/04-jobs.csv").starts_with("job_id,chute_id,version,"));
}

#[tokio::test]
async fn an_hour_waits_for_a_silent_writer_twenty_minutes_and_no_longer() {
    let ledger = Ledger::new().await;
    ledger.send(&[entry(WriterId::random(), 1, attempt(1, at("03:10:00")))]);
    ledger.ingest(at("03:11:00")).await;
    ledger.export(at("04:19:59")).await;
    assert_eq!(ledger.store.object(FOUR), None);
    ledger.export(at("04:20:00")).await;
    assert_eq!(lines(&ledger.file(FOUR)), 1);
}

#[tokio::test]
async fn a_late_row_goes_into_the_oldest_open_hour_and_into_exactly_one_file() {
    let ledger = Ledger::new().await;
    let writer = WriterId::random();
    ledger.send(&[entry(writer, 1, attempt(1, at("03:10:00"))), beat(writer, at("04:00:00"), 1, false)]);
    ledger.ingest(at("04:00:01")).await;
    ledger.export(at("04:00:02")).await;
    let closed = ledger.file(FOUR);
    ledger.send(&[entry(writer, 2, attempt(2, at("03:50:00"))), entry(writer, 3, attempt(3, at("04:10:00")))]);
    ledger.send(&[beat(writer, at("05:00:00"), 3, true)]);
    ledger.ingest(at("05:00:01")).await;
    ledger.export(at("05:00:02")).await;
    assert_eq!(ledger.file(FOUR), closed);
    let next = ledger.file(FIVE);
    assert_eq!((lines(&closed), lines(&next)), (1, 2));
    let late = "2026-01-02 03:49:59,2026-01-02 03:50:00,";
    assert!(next.contains(late) && !closed.contains(late));
}

#[tokio::test]
async fn two_workers_racing_for_an_hour_write_one_file() {
    let ledger = Ledger::new().await;
    let writer = WriterId::random();
    for number in 1..=40 {
        ledger.send(&[entry(writer, number, attempt(number.into(), at("03:10:00")))]);
    }
    ledger.send(&[beat(writer, at("04:00:00"), 40, true)]);
    ledger.ingest(at("04:00:01")).await;
    tokio::join!(ledger.export(at("04:00:02")), ledger.export(at("04:00:02")), ledger.export(at("04:00:02")));
    let recorded: Vec<(String, String, i64)> = sqlx::query_as("select kind, sha256, rows from exports order by kind")
        .fetch_all(&ledger.database.pool)
        .await
        .unwrap();
    assert_eq!(recorded.len(), 3);
    let file = ledger.file(FOUR);
    assert_eq!(recorded[0], ("invocations".into(), hex::encode(Sha256::digest(&file)), 40));
    assert_eq!(lines(&file), 40);
    assert_eq!(ledger.metrics.ledger.exports.get(), 3);
}

#[tokio::test]
async fn c19_a_file_written_again_after_a_crash_has_the_same_bytes() {
    let ledger = Ledger::new().await;
    let writer = WriterId::random();
    ledger.send(&[entry(writer, 2, attempt(9, at("03:10:00"))), entry(writer, 1, attempt(1, at("03:10:00")))]);
    ledger.send(&[entry(writer, 3, attempt(5, at("03:05:00"))), beat(writer, at("04:00:00"), 3, true)]);
    ledger.ingest(at("04:00:01")).await;
    ledger.export(at("04:00:02")).await;
    let written = ledger.file(FOUR);
    // The crash: the file is there, the row that says so is not.
    sqlx::query("delete from exports").execute(&ledger.database.pool).await.unwrap();
    ledger.export(at("04:30:00")).await;
    assert_eq!(ledger.file(FOUR), written);
    assert_eq!(ledger.count("select count(*) from exports").await, 3);
    let starts: Vec<&str> = written.lines().skip(1).filter_map(|line| line.split(',').nth(1)).collect();
    assert_eq!(starts.len(), 3);
    assert!(
        starts[0].ends_with('5') && starts[1].ends_with('1') && starts[2].ends_with('9'),
        "by start, then identifier"
    );
}

#[tokio::test]
async fn hours_without_attempts_have_files_with_a_header_only() {
    let ledger = Ledger::new().await;
    let writer = WriterId::random();
    ledger.send(&[beat(writer, at("03:10:00"), 0, false)]);
    ledger.ingest(at("03:10:00")).await;
    ledger.send(&[beat(writer, at("06:00:00"), 0, true)]);
    ledger.ingest(at("06:00:00")).await;
    ledger.export(at("06:00:01")).await;
    for hour in ["04", "05", "06"] {
        let file = ledger.file(&format!("invocations/2026/01/02/{hour}.csv"));
        assert_eq!((lines(&file), file.ends_with("bounty,metrics\r\n")), (0, true));
    }
    assert_eq!(ledger.store.object("invocations/2026/01/02/03.csv"), None);
    assert_eq!(ledger.store.object("invocations/2026/01/02/07.csv"), None);
}

#[tokio::test]
async fn a_platform_that_nobody_has_used_has_no_files() {
    let ledger = Ledger::new().await;
    ledger.export(at("04:00:00")).await;
    assert_eq!(ledger.count("select count(*) from export_hours").await, 0);
}

#[tokio::test]
async fn a_report_is_in_the_file_of_its_hour_and_in_that_of_its_confirmation() {
    let ledger = Ledger::new().await;
    let writer = WriterId::random();
    ledger.send(&[beat(writer, at("03:10:00"), 0, false), beat(writer, at("06:00:00"), 0, true)]);
    ledger.ingest(at("03:10:00")).await;
    sqlx::query(
        "insert into reports values ('00000000-0000-0000-0000-000000000001', '00000000-0000-0000-0000-000000000007',
        '2026-01-02 03:20:00Z', '2026-01-02 05:20:00Z', '00000000-0000-0000-0000-000000000004', 'wrong',
        '2026-01-02 04:00:00Z', '2026-01-02 06:00:00Z')",
    )
    .execute(&ledger.database.pool)
    .await
    .unwrap();
    ledger.export(at("06:00:01")).await;
    for (hour, reports) in [("04", 1), ("05", 0), ("06", 1)] {
        assert_eq!(lines(&ledger.file(&format!("invocations/2026/01/02/{hour}-reports.csv"))), reports, "{hour}");
    }
}
