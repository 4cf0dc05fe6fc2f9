//! Which instance a call goes to when one is silent, fails, or has failed too often.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use gateway::retry::SPAN;
use protocol::ids::CallId;
use protocol::usage::Outcome;
use tokio::sync::{Mutex, mpsc};

use crate::client::{Answer, ask, chat, content};
use crate::instance::{Act, Scripted};
use crate::platform::{CONCURRENCY, Platform, Wishes};

const CHAT: &str = "/v1/chat/completions";
const DONE: &str = "data: [DONE]\n\n";

fn answer() -> Vec<String> {
    vec![content("one"), DONE.into()]
}

async fn start(instances: &[&Scripted], settings: &[&str]) -> Platform {
    let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
    Platform::start(instances, Wishes { settings, ..Wishes::default() }).await
}

async fn call(platform: &Platform, stream: bool) -> Answer {
    ask(platform, "POST", "llm-chute", CHAT, &chat(stream)).await
}

/// A metric's value, 0 while it has none.
async fn metric(platform: &Platform, line: &str) -> u64 {
    let url = format!("http://127.0.0.1:{}/metrics", platform.internal);
    let text = reqwest::Client::builder().build().unwrap().get(url).bearer_auth("internal").send().await.unwrap();
    let text = text.error_for_status().unwrap().text().await.unwrap();
    text.lines().find_map(|found| found.strip_prefix(line)?.trim().parse().ok()).unwrap_or(0)
}

#[tokio::test]
async fn an_instance_that_stays_silent_is_overtaken_by_another_and_the_call_is_billed_once() {
    let [first, second] = Scripted::pair([Act::Stall(vec![]), Act::Stream(answer())]).await;
    let platform = start(&[&first, &second], &["--attempt=0.3"]).await;
    let got = call(&platform, true).await;
    assert_eq!((got.status, got.text()), (200, answer().concat()));
    let records = platform.records(2).await;
    let judged = |number: usize| (records[number].outcome, records[number].error.as_deref(), records[number].delivered);
    assert_eq!(judged(0), (Outcome::Failed, Some("TIMEOUT"), false));
    assert_eq!(judged(1), (Outcome::Finished, None, true));
    assert_eq!(records[0].admission.call, records[1].admission.call);
    let abandoned = *first.abandoned.borrow() + *second.abandoned.borrow();
    assert_eq!(abandoned, 1, "the silent one is let go");
    assert_eq!(metric(&platform, "chutes_gateway_failovers_total{reason=\"TIMEOUT\"}").await, 1);
}

#[tokio::test]
async fn the_last_instance_may_use_all_the_patience_of_a_call() {
    let (pieces, receiver) = mpsc::channel(16);
    let slow = Scripted::start([Act::Fed(Arc::new(Mutex::new(receiver)))]).await;
    let platform = start(&[&slow], &["--attempt=0.1"]).await;
    let feed = async {
        while slow.asked() == 0 {
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(Duration::from_millis(800)).await;
        pieces.send(content("late")).await.unwrap();
        pieces.send(DONE.into()).await.unwrap();
        drop(pieces);
    };
    let (got, ()) = tokio::join!(call(&platform, true), feed);
    assert_eq!((got.status, got.text()), (200, content("late") + DONE));
    assert_eq!((slow.asked(), platform.records(1).await.len()), (1, 1));
}

#[tokio::test]
async fn an_answer_in_one_piece_may_take_longer_than_an_instance_has_for_a_stream() {
    let late = Scripted::start([Act::Late(Duration::from_millis(800), "{}".into())]).await;
    let platform = start(&[&late, &late], &["--attempt=0.1"]).await;
    assert_eq!(call(&platform, false).await.status, 200);
    assert_eq!(late.asked(), 1);
}

#[tokio::test]
async fn the_patience_of_a_call_covers_all_its_attempts() {
    let silent = Scripted::start([Act::Stall(vec![])]).await;
    let platform = start(&[&silent, &silent, &silent], &["--attempt=0.4", "--first-chunk=1"]).await;
    let begun = Instant::now();
    let got = call(&platform, true).await;
    assert_eq!((got.status, got.json()["error"]["code"].as_str()), (504, Some("upstream_timeout")));
    assert!(begun.elapsed() >= Duration::from_secs(1));
    let records = platform.records(3).await;
    assert!(records.iter().all(|record| record.error.as_deref() == Some("TIMEOUT")), "{records:?}");
}

#[tokio::test]
async fn without_a_budget_for_retries_a_failure_is_answered_at_once() {
    let failing = Scripted::start([Act::Error(500, "oh")]).await;
    let platform = start(&[&failing, &failing], &["--retry-floor=0"]).await;
    for _ in 0..3 {
        let got = call(&platform, true).await;
        assert_eq!((got.status, got.json()["error"]["code"].as_str()), (502, Some("exhausted")));
    }
    assert_eq!((failing.asked(), platform.records(3).await.len()), (3, 3));
    assert_eq!(metric(&platform, "chutes_gateway_retries_refused_total{whose=\"chute\"}").await, 3);
}

#[tokio::test]
async fn calls_under_way_on_an_instance_that_dies_go_on_without_a_budget() {
    const AT_ONCE: usize = 8;
    let dying: Vec<Act> = vec![Act::Break("", Duration::from_millis(500)); AT_ONCE];
    let (dying, steady) = (Scripted::start(dying).await, Scripted::start([Act::Json("{}".into())]).await);
    let platform = start(&[&dying, &steady], &["--retry-floor=0"]).await;
    let answers = join_all((0..2 * AT_ONCE).map(|_| call(&platform, false))).await;
    assert!(dying.asked() > 2, "so few calls the budget would give a retry");
    assert!(
        answers.iter().all(|got| got.status == 200),
        "{:?}",
        answers.iter().map(|got| got.status).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn instances_that_break_every_connection_cost_a_tenth_more_attempts_and_what_one_instance_takes_at_once() {
    const CALLS: usize = 60;
    /// So many that each fails too seldom to be left alone.
    const INSTANCES: usize = 60;
    let breaking = Scripted::start([Act::Close]).await;
    let platform = start(&[&breaking; INSTANCES], &["--retry-floor=0"]).await;
    let begun = Instant::now();
    let answers = join_all((0..CALLS).map(|_| call(&platform, false))).await;
    assert!(begun.elapsed() < SPAN, "they have more than one budget");
    assert!(answers.iter().all(|got| got.status == 502), "{answers:?}");
    let records = platform.records(breaking.asked()).await;
    let calls: HashSet<CallId> = records.iter().map(|record| record.admission.call).collect();
    assert_eq!((records.len(), calls.len()), (breaking.asked(), CALLS));
    let retries = breaking.asked() - CALLS;
    assert!((CONCURRENCY..=CONCURRENCY + CALLS / 10).contains(&retries), "{retries} retries of {CALLS} calls");
}

#[tokio::test]
async fn in_ten_seconds_a_chute_has_half_the_floor_of_retries() {
    let failing = Scripted::start([Act::Error(500, "oh")]).await;
    let platform = start(&[&failing, &failing], &["--retry-floor=6"]).await;
    for _ in 0..9 {
        assert_eq!(call(&platform, true).await.status, 502);
    }
    assert_eq!(failing.asked(), 9 + 3);
}

/// Calls until the first of two instances has failed three times, which opens its breaker.
async fn opened(settings: &[&str]) -> (Platform, Scripted, Scripted) {
    let failing =
        Scripted::start([Act::Error(500, "a"), Act::Error(500, "b"), Act::Error(500, "c"), Act::Json("{}".into())]);
    let (failing, steady) = (failing.await, Scripted::start([Act::Json("{}".into())]).await);
    let platform = start(&[&failing, &steady], settings).await;
    while failing.asked() < 3 {
        assert_eq!(call(&platform, false).await.status, 200);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    (platform, failing, steady)
}

#[tokio::test]
async fn an_instance_that_fails_again_and_again_is_left_alone() {
    let (platform, failing, _steady) = opened(&["--breaker=60", "--breaker-longest=60"]).await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    for _ in 0..20 {
        assert_eq!(call(&platform, false).await.status, 200);
    }
    assert_eq!(failing.asked(), 3);
    assert_eq!(metric(&platform, "chutes_gateway_instances{state=\"open\"}").await, 1);
    assert_eq!(metric(&platform, "chutes_gateway_breaker_openings_total").await, 1);
}

#[tokio::test]
async fn an_instance_left_alone_is_tried_again_after_the_time_that_is_set() {
    for settings in [["--breaker=0.1", "--breaker-longest=60"], ["--breaker=60", "--breaker-longest=0.1"]] {
        let (platform, failing, _steady) = opened(&settings).await;
        let deadline = Instant::now() + Duration::from_secs(10);
        while failing.asked() < 9 {
            assert_eq!(call(&platform, false).await.status, 200);
            assert!(Instant::now() < deadline, "{settings:?}: it was asked {} times", failing.asked());
        }
    }
}

#[tokio::test]
async fn a_chute_with_one_instance_is_served_as_soon_as_that_answers_again() {
    let script = (0..6).map(|_| Act::Error(500, "oh")).chain([Act::Json("{}".into())]);
    let only = Scripted::start(script).await;
    let platform = start(&[&only], &["--breaker=60"]).await;
    let mut statuses = Vec::new();
    for _ in 0..7 {
        statuses.push(call(&platform, false).await.status);
    }
    assert_eq!(statuses, [502, 502, 502, 502, 502, 502, 200], "its breaker never makes it deaf");
}
