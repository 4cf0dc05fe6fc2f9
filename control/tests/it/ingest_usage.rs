//! Attempts arrive in any order, twice, broken or late, and are stored once.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use control::db::partitions;
use control::task::ingest_usage;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use protocol::ids::WriterId;
use protocol::keys::Key;
use protocol::record::batch::Batch;
use protocol::record::ingest::Wanted;
use protocol::usage::{Entry, Outcome, Record};
use uuid::Uuid;

use crate::ledger::{Ledger, at, attempt, beat, entry};

#[tokio::test]
async fn each_attempt_is_stored_once_however_often_it_is_delivered() {
    let ledger = Ledger::new().await;
    let writer = WriterId::random();
    let entries: Vec<Entry> = (1..=3).map(|n| entry(writer, n, attempt(n.into(), at("03:10:00")))).collect();
    ledger.send(&entries);
    ledger.send(&entries);
    ledger.ingest(at("03:11:00")).await;
    ledger.send(&entries);
    ledger.ingest(at("03:12:00")).await;
    assert_eq!(ledger.count("select count(*) from invocations").await, 3);
    assert_eq!(ledger.quota().await.into_values().collect::<Vec<_>>(), [3]);
    assert_eq!(ledger.count("select calls from chute_calls").await, 3);
    assert_eq!(ledger.count("select (averages->'spt'->>'samples')::bigint from pace").await, 3);
    assert_eq!(ledger.published_mark(writer), Some(3));
    assert_eq!(ledger.waiting(), (0, 0));
    let counted = &ledger.metrics.ledger;
    assert_eq!((counted.inserted.get(), counted.repeated.get(), counted.contradicted.get()), (3, 6, 0));
}

#[tokio::test]
async fn a_partition_that_cannot_be_made_stops_neither_the_others_nor_ingestion() {
    let ledger = Ledger::new().await;
    // In the way of the current week's partition, which begins on 2025-12-29.
    let obstacle = "create table obstacle partition of invocations
        for values from ('2025-12-30 00:00:00+00') to ('2025-12-31 00:00:00+00')";
    sqlx::query(obstacle).execute(&ledger.database.pool).await.unwrap();
    ledger.send(&[entry(WriterId::random(), 1, attempt(1, at("03:10:00")))]);
    ledger.ingest(at("03:11:00")).await;
    assert_eq!(ledger.count("select count(*) from invocations_default").await, 1);
    let made = "select count(*) from pg_class where relname ~ '^invocations_2[0-9]{7}$'";
    assert_eq!(ledger.count(made).await, 5);
    let mut connection = ledger.database.pool.acquire().await.unwrap();
    partitions::ensure(&mut connection, at("03:11:00")).await.unwrap_err();
    let usable: i32 = sqlx::query_scalar("select 1").fetch_one(&mut *connection).await.unwrap();
    assert_eq!(usable, 1);
    // Once nothing is in the way, the week is made and its rows move.
    sqlx::query("drop table obstacle").execute(&mut *connection).await.unwrap();
    partitions::ensure(&mut connection, at("03:11:00")).await.unwrap();
    assert_eq!(ledger.count("select count(*) from invocations_20251229").await, 1);
    assert_eq!(ledger.count("select count(*) from invocations_default").await, 0);
}

#[tokio::test]
async fn a_crash_between_commit_and_acknowledgement_changes_nothing() {
    let ledger = Ledger::new().await;
    let writer = WriterId::random();
    ledger.send(&[entry(writer, 1, attempt(1, at("03:10:00"))), entry(writer, 2, attempt(2, at("03:10:01")))]);
    let entries = ledger.stream().read(Wanted::New).await.unwrap();
    ingest_usage::store(&ledger.database.pool, &Batch::read(&entries), at("03:11:00")).await.unwrap();
    assert_eq!((ledger.waiting(), ledger.published_mark(writer)), ((2, 2), None));
    ledger.ingest(at("03:12:00")).await;
    assert_eq!(ledger.count("select count(*) from invocations").await, 2);
    assert_eq!(ledger.quota().await.into_values().collect::<Vec<_>>(), [2]);
    assert_eq!((ledger.waiting(), ledger.published_mark(writer)), ((0, 0), Some(2)));
}

#[tokio::test]
async fn a_crash_before_the_commit_loses_nothing() {
    let ledger = Ledger::new().await;
    let writer = WriterId::random();
    ledger.send(&[entry(writer, 1, attempt(1, at("03:10:00")))]);
    assert_eq!(ledger.stream().read(Wanted::New).await.unwrap().len(), 1);
    ledger.ingest(at("03:11:00")).await;
    assert_eq!(ledger.count("select count(*) from invocations").await, 1);
    assert_eq!(ledger.waiting(), (0, 0));
}

#[tokio::test]
async fn a_mark_waits_before_a_gap_and_a_beat_beyond_it_is_not_believed() {
    let ledger = Ledger::new().await;
    let writer = WriterId::random();
    let sent = |n: u64| entry(writer, n, attempt(n.into(), at("03:10:00")));
    ledger.send(&[sent(1), sent(2), sent(4), beat(writer, at("03:10:30"), 4, true)]);
    ledger.ingest(at("03:11:00")).await;
    assert_eq!(ledger.published_mark(writer), Some(2));
    assert_eq!(ledger.count("select count(*) from log_writers where closed").await, 0);
    ledger.send(&[sent(3), sent(4), beat(writer, at("03:10:31"), 4, true)]);
    ledger.ingest(at("03:12:00")).await;
    assert_eq!(ledger.published_mark(writer), Some(4));
    assert_eq!(ledger.count("select count(*) from log_writers where closed").await, 1);
    assert_eq!(ledger.count("select count(*) from invocations").await, 4);
}

#[tokio::test]
async fn a_redis_that_lost_everything_is_given_the_marks_again_and_read_on() {
    let ledger = Ledger::new().await;
    let writer = WriterId::random();
    ledger.send(&[entry(writer, 1, attempt(1, at("03:10:00")))]);
    ledger.ingest(at("03:11:00")).await;
    redis::cmd("FLUSHALL").exec(&mut ledger.redis.connection()).unwrap();
    ledger.ingest(at("03:12:00")).await;
    assert_eq!(ledger.published_mark(writer), Some(1));
    ledger.send(&[entry(writer, 1, attempt(1, at("03:10:00"))), entry(writer, 2, attempt(2, at("03:12:30")))]);
    ledger.ingest(at("03:13:00")).await;
    assert_eq!(ledger.count("select count(*) from invocations").await, 2);
    assert_eq!((ledger.waiting(), ledger.published_mark(writer)), ((0, 0), Some(2)));
}

#[tokio::test]
async fn an_unreadable_entry_is_put_aside_and_blocks_nothing() {
    let ledger = Ledger::new().await;
    let writer = WriterId::random();
    let mut redis = ledger.redis.connection();
    let mut broken = redis::cmd("XADD");
    broken.arg(Key::usage().as_str()).arg("*").arg("w").arg(writer.to_string()).arg("s").arg(1);
    broken.arg("r").arg(&b"{\"call\": \xff"[..]).exec(&mut redis).unwrap();
    let mut refused = attempt(2, at("03:10:00"));
    refused.admission.function = "a name with a \0 that postgres refuses".into();
    ledger.send(&[entry(writer, 2, refused), entry(writer, 3, attempt(3, at("03:10:00")))]);
    ledger.ingest(at("03:11:00")).await;
    assert_eq!(ledger.count("select count(*) from invocations").await, 1);
    assert_eq!(ledger.count("select count(*) from usage_rejects where length(raw) > 50 and reason <> ''").await, 2);
    assert_eq!(ledger.metrics.ledger.rejected.get(), 2);
    assert_eq!((ledger.waiting(), ledger.published_mark(writer)), ((0, 0), Some(3)));
}

#[tokio::test]
async fn the_first_final_of_an_attempt_stands_and_a_contradiction_is_counted() {
    let ledger = Ledger::new().await;
    let writer = WriterId::random();
    let first = attempt(1, at("03:10:00"));
    let second = Record { outcome: Outcome::Lost, ..first.clone() };
    ledger.send(&[entry(writer, 1, first), entry(writer, 2, second.clone())]);
    ledger.ingest(at("03:11:00")).await;
    ledger.send(&[entry(writer, 3, second)]);
    ledger.ingest(at("03:12:00")).await;
    assert_eq!(ledger.count("select count(*) from invocations where outcome = 'finished'").await, 1);
    assert_eq!(ledger.count("select count(*) from invocations").await, 1);
    assert_eq!((ledger.metrics.ledger.contradicted.get(), ledger.metrics.ledger.repeated.get()), (2, 0));
    assert_eq!(ledger.published_mark(writer), Some(3));
}

#[tokio::test]
async fn c1_a_call_whose_client_hung_up_has_an_end_is_paid_and_uses_quota() {
    let ledger = Ledger::new().await;
    let writer = WriterId::random();
    let got_some = Record { outcome: Outcome::Aborted, ..attempt(1, at("03:10:00")) };
    let got_nothing = Record { outcome: Outcome::Aborted, delivered: false, ..attempt(2, at("03:10:00")) };
    let failed = Record { outcome: Outcome::Failed, error: Some("CLOSED".into()), ..attempt(3, at("03:10:00")) };
    ledger.send(&[entry(writer, 1, got_some), entry(writer, 2, got_nothing), entry(writer, 3, failed)]);
    ledger.ingest(at("03:11:00")).await;
    let reasons: Vec<Option<String>> =
        sqlx::query_scalar("select error_message from invocations order by invocation_id")
            .fetch_all(&ledger.database.pool)
            .await
            .unwrap();
    assert_eq!(reasons, [None, Some("ABORTED".into()), Some("CLOSED".into())]);
    assert_eq!(ledger.quota().await.into_values().collect::<Vec<_>>(), [1]);
    assert_eq!(ledger.count("select (metrics->>'ot')::bigint from invocations where error_message is null").await, 5);
}

#[tokio::test]
async fn c4_a_row_is_told_by_identifier_and_start_and_never_changed_afterwards() {
    let ledger = Ledger::new().await;
    let writer = WriterId::random();
    ledger.send(&[entry(writer, 1, attempt(1, at("03:10:00"))), entry(writer, 2, attempt(1, at("03:20:00")))]);
    ledger.ingest(at("03:21:00")).await;
    let rows: Vec<(DateTime<Utc>, DateTime<Utc>)> =
        sqlx::query_as("select started_at, completed_at from invocations order by started_at")
            .fetch_all(&ledger.database.pool)
            .await
            .unwrap();
    assert_eq!(rows, [(at("03:09:59"), at("03:10:00")), (at("03:19:59"), at("03:20:00"))]);
}

#[tokio::test]
async fn rows_of_a_week_that_fell_into_the_net_move_into_its_partition() {
    let ledger = Ledger::new().await;
    let writer = WriterId::random();
    ledger.send(&[entry(writer, 1, attempt(1, at("03:10:00")))]);
    ledger.ingest("2025-06-01T00:00:00Z".parse().unwrap()).await;
    assert_eq!(ledger.count("select count(*) from only invocations_default").await, 1);
    ledger.ingest(at("03:11:00")).await;
    assert_eq!(ledger.count("select count(*) from only invocations_default").await, 0);
    assert_eq!(ledger.count("select count(*) from invocations_20251229").await, 1);
    assert_eq!(ledger.count("select count(*) from invocations").await, 1);
}

/// Rows without what depends on the order: averages.
async fn picture(ledger: &Ledger, writers: &[WriterId]) -> (Vec<String>, Vec<i64>, Vec<Option<u64>>, i64) {
    let rows = sqlx::query_scalar(
        "select (to_jsonb(invocations) - 'metrics' || jsonb_build_object(
            'it', metrics->'it', 'ot', metrics->'ot', 'ttft', metrics->'ttft', 'tt', metrics->'tt'))::text
        from invocations order by invocation_id",
    )
    .fetch_all(&ledger.database.pool)
    .await
    .unwrap();
    let quota = ledger.quota().await.into_values().collect();
    let marks = writers.iter().map(|writer| ledger.published_mark(*writer)).collect();
    (rows, quota, marks, ledger.count("select calls from chute_calls").await)
}

#[tokio::test(flavor = "multi_thread")]
async fn any_order_and_repetition_of_entries_gives_the_same_rows_counts_and_marks() {
    let writers = [WriterId(Uuid::from_u128(1)), WriterId(Uuid::from_u128(2))];
    let entries: Vec<Entry> = (0..24_u64)
        .map(|n| {
            let outcome = [Outcome::Finished, Outcome::Aborted, Outcome::Failed][n as usize % 3];
            let record = Record { outcome, delivered: n % 5 != 0, ..attempt(n.into(), at("03:10:00")) };
            entry(writers[n as usize % 2], n / 2 + 1, record)
        })
        .collect();
    let orderly = Ledger::new().await;
    orderly.send(&entries);
    orderly.ingest(at("03:11:00")).await;
    let expected = picture(&orderly, &writers).await;
    assert_eq!(expected.0.len(), 24);
    let deliveries = prop::collection::vec(prop::collection::vec(0..24_usize, 1..40), 1..4);
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(6) });
    let runtime = tokio::runtime::Handle::current();
    tokio::task::block_in_place(|| {
        runner.run(&deliveries, |deliveries| {
            let found = runtime.block_on(async {
                let ledger = Ledger::new().await;
                for delivery in &deliveries {
                    let sent: Vec<Entry> = delivery.iter().map(|place| entries[*place].clone()).collect();
                    ledger.send(&sent);
                    ledger.ingest(at("03:11:00")).await;
                }
                // The shippers send what lies above their marks until nothing is missing.
                ledger.send(&entries);
                ledger.ingest(at("03:11:00")).await;
                picture(&ledger, &writers).await
            });
            prop_assert_eq!(&found, &expected);
            Ok(())
        })
    })
    .unwrap();
}

#[tokio::test]
async fn two_ingesters_that_both_believe_to_be_on_duty_store_each_attempt_once() {
    let ledger = Ledger::new().await;
    let writer = WriterId::random();
    let entries: Vec<Entry> = (1..=50).map(|n| entry(writer, n, attempt(n.into(), at("03:10:00")))).collect();
    ledger.send(&entries);
    let batch = Batch::read(&ledger.stream().read(Wanted::New).await.unwrap());
    let pool = &ledger.database.pool;
    let (one, other) = tokio::join!(
        ingest_usage::store(pool, &batch, at("03:11:00")),
        ingest_usage::store(pool, &batch, at("03:11:00"))
    );
    let counts: BTreeSet<u64> = [one.unwrap().inserted, other.unwrap().inserted].into();
    assert_eq!(counts, BTreeSet::from([0, 50]));
    assert_eq!(ledger.quota().await.into_values().collect::<Vec<_>>(), [50]);
    assert_eq!(ledger.count("select (averages->'spt'->>'samples')::bigint from pace").await, 50);
}
