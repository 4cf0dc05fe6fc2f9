//! A Redis that answers with errors: calls of known callers go on, nothing is lost, and it heals without help.
//!
//! Each error is a real one of a real Redis that was brought into its state.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use protocol::credential::ApiKey;
use protocol::ids::UserId;

use crate::client::{Answer, Raw};
use crate::instance::{Act, Scripted};
use crate::platform::{DOMAIN, Platform, Wishes};
use crate::redis_states::State;

/// How long each state lasts at least: longer than any time that the gateway waits for an answer of Redis.
const LASTS: Duration = Duration::from_secs(3);
/// How soon after it everything is as before.
const HEALED_WITHIN: Duration = Duration::from_secs(15);

/// Whether principals can be read in a state, and their changes followed.
#[derive(Clone, Copy, PartialEq)]
enum Principals {
    Followed,
    Unknown,
}

async fn call(port: u16, key: &str) -> Answer {
    let mut raw = Raw::at(port).await;
    let head = "POST /run HTTP/1.1\r\nHost: own-chute";
    raw.send(format!("{head}.{DOMAIN}\r\nAuthorization: {key}\r\nContent-Length: 2\r\n\r\n{{}}").as_bytes()).await;
    raw.answer().await
}

/// The answer to somebody whom the gateway has not seen, with a key that was never made.
async fn stranger(platform: &Platform) -> u16 {
    call(platform.http, ApiKey::generate(UserId::random()).reveal()).await.status
}

/// Brings Redis into a state and out of it again, under calls to a gateway that serves whom it knows for long without
/// Redis, and to one that does so for a second.
async fn endures(state: State, principals: Principals) {
    let scripted = Scripted::start([Act::Json("1".into())]).await;
    let mut platform = Platform::start(&[&scripted], Wishes::default()).await;
    let second = platform.second(&["--stale-after".into(), "1".into()]).await;
    let (patient, impatient, key) = (platform.http, second.http, platform.key.clone());
    let mut calls = 0;
    let mut turned_away = 0;
    for port in [patient, impatient] {
        assert_eq!(call(port, &key).await.status, 200);
        calls += 1;
    }
    assert_eq!(stranger(&platform).await, 401);
    let end = state.begin(&mut platform.redis);
    let begun = Instant::now();
    while begun.elapsed() < LASTS {
        assert_eq!(call(patient, &key).await.status, 200, "after {:?}", begun.elapsed());
        calls += 1;
        let answer = call(impatient, &key).await;
        if answer.status == 200 {
            assert_eq!(turned_away, 0, "it knows again whom it cannot know");
            calls += 1;
        } else {
            assert!(answer.status == 503 && answer.text().contains("accounts cannot be checked"), "{}", answer.text());
            turned_away += 1;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(turned_away > 0, principals == Principals::Unknown, "{turned_away} calls of somebody known are refused");
    assert_eq!(stranger(&platform).await, if principals == Principals::Followed { 401 } else { 503 });
    end(&mut platform.redis);
    let healed_by = Instant::now() + HEALED_WITHIN;
    while stranger(&platform).await != 401 {
        assert!(Instant::now() < healed_by, "strangers are not told apart again");
    }
    while call(impatient, &key).await.status != 200 {
        assert!(Instant::now() < healed_by, "somebody known is refused");
    }
    assert_eq!(call(patient, &key).await.status, 200);
    calls += 2;
    let recorded_by = Instant::now() + HEALED_WITHIN;
    loop {
        // What Redis did not confirm is sent again; the ingester counts it once.
        let records = platform.records(calls).await;
        let calls_recorded: BTreeSet<String> =
            records.iter().map(|record| record.admission.invocation.to_string()).collect();
        assert!(calls_recorded.len() <= calls, "calls that nobody made");
        if calls_recorded.len() == calls {
            return;
        }
        assert!(Instant::now() < recorded_by, "{} of {calls} calls are recorded", calls_recorded.len());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_redis_without_memory_delays_records_and_nothing_else() {
    endures(State::WithoutMemory, Principals::Followed).await;
}

#[tokio::test]
async fn a_redis_that_became_a_replica_delays_records_and_nothing_else() {
    endures(State::Replica, Principals::Followed).await;
}

#[tokio::test]
async fn a_redis_that_cannot_save_delays_records_and_nothing_else() {
    endures(State::CannotSave, Principals::Followed).await;
}

#[tokio::test]
async fn a_redis_that_loads_its_data_is_waited_for() {
    endures(State::Loads, Principals::Unknown).await;
}

#[tokio::test]
async fn a_redis_that_is_busy_is_waited_for() {
    endures(State::Busy, Principals::Unknown).await;
}

#[tokio::test]
async fn a_redis_that_does_not_know_the_gateway_any_more_is_waited_for() {
    endures(State::KnowsNobody, Principals::Unknown).await;
}

#[tokio::test]
async fn a_redis_that_pauses_its_clients_is_waited_for() {
    endures(State::Paused, Principals::Unknown).await;
}

#[tokio::test]
async fn a_redis_that_takes_bytes_and_says_nothing_is_waited_for() {
    endures(State::Silent, Principals::Unknown).await;
}
