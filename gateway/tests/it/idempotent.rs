//! Calls with an `Idempotency-Key` through real executables: made once, answered again, billed once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use protocol::ids::UserId;
use protocol::principal::{Bucket, UserEntry};
use protocol::usage::{Outcome, Record};
use redis::Commands;
use tokio::sync::{Mutex, mpsc};

use crate::client::{Answer, Raw, ask, chat, content, request};
use crate::instance::{Act, Scripted};
use crate::platform::{Platform, Wishes};
use crate::who::eventually;

const CHAT: &str = "/v1/chat/completions";
const DONE: &str = "data: [DONE]\n\n";
const LONGEST: Duration = Duration::from_secs(15);
/// All of a gateway that closes its connections was told to stop by then.
const TOLD_TO_STOP: Duration = Duration::from_secs(3);
/// A question to Redis is given up by then.
const GIVEN_UP: Duration = Duration::from_secs(3);

fn answer() -> Vec<String> {
    vec![content("one"), content("two"), DONE.into()]
}

async fn fed() -> (Scripted, mpsc::Sender<String>) {
    let (sender, receiver) = mpsc::channel(16);
    (Scripted::start([Act::Fed(Arc::new(Mutex::new(receiver))), Act::Stream(answer())]).await, sender)
}

fn wishes(settings: &[&str]) -> Wishes {
    Wishes { settings: settings.iter().map(|&text| text.to_owned()).collect(), ..Wishes::default() }
}

/// The bytes of a call with this key.
fn keyed(platform: &Platform, label: &str, key: &str, body: &str) -> Vec<u8> {
    keyed_at(platform, label, CHAT, key, body)
}

/// The bytes of a call with this key; fields may follow the path.
fn keyed_at(platform: &Platform, label: &str, path: &str, key: &str, body: &str) -> Vec<u8> {
    let with_key = format!("{path} HTTP/1.1\r\nIdempotency-Key: {key}");
    let plain = String::from_utf8(request(platform, "POST", label, path, body)).unwrap();
    plain.replacen(&format!("{path} HTTP/1.1"), &with_key, 1).into_bytes()
}

async fn call_at(port: u16, platform: &Platform, key: &str, body: &str) -> Answer {
    let mut raw = Raw::at(port).await;
    raw.send(&keyed(platform, "llm-chute", key, body)).await;
    raw.answer().await
}

/// Asks until the first call no longer runs.
async fn call_until_over(port: u16, platform: &Platform, key: &str, body: &str) -> Answer {
    let deadline = tokio::time::Instant::now() + LONGEST;
    loop {
        let got = call_at(port, platform, key, body).await;
        if got.status != 409 {
            return got;
        }
        assert!(tokio::time::Instant::now() < deadline, "the first call is never over");
        // Asking counts for the rate, which many clients at once must not exceed.
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

fn code(got: &Answer) -> String {
    got.json()["error"]["code"].as_str().unwrap().to_owned()
}

/// The records of calls before one without a key, which is made here to see that no others come.
async fn records_in_all(platform: &Platform, port: u16, wanted: usize) -> Vec<Record> {
    let mut raw = Raw::at(port).await;
    raw.send(&request(platform, "POST", "llm-chute", CHAT, &chat(true))).await;
    let last = raw.answer().await;
    let mut records = platform.records(wanted + 1).await;
    assert_eq!(records.len(), wanted + 1);
    let last = last.field("x-chutes-invocationid").unwrap().to_owned();
    records.retain(|record| record.admission.call.to_string() != last);
    assert_eq!(records.len(), wanted);
    records
}

fn assert_replayed(got: &Answer, first: &Answer) {
    assert_eq!((got.status, got.field("idempotent-replayed")), (first.status, Some("true")));
    assert_eq!(got.text(), first.text());
    for field in ["content-type", "cache-control", "x-chutes-invocationid"] {
        assert_eq!(got.field(field), first.field(field), "{field}");
    }
}

#[tokio::test]
async fn a_repeated_call_gets_the_same_answer_from_any_gateway_and_is_billed_once() {
    for stream in [true, false] {
        let act = if stream { Act::Stream(answer()) } else { Act::Json(r#"{"choices":[]}"#.into()) };
        let scripted = Scripted::start([act, Act::Stream(answer())]).await;
        let platform = Platform::start(&[&scripted], Wishes::default()).await;
        let second = platform.second(&[]).await;
        let first = call_at(platform.http, &platform, "key-1", &chat(stream)).await;
        assert_eq!((first.status, first.field("idempotent-replayed")), (200, None));
        for port in [second.http, platform.http] {
            assert_replayed(&call_until_over(port, &platform, "key-1", &chat(stream)).await, &first);
        }
        assert_eq!(scripted.asked(), 1);
        let records = records_in_all(&platform, second.http, 1).await;
        assert_eq!(first.field("x-chutes-invocationid"), Some(records[0].admission.call.to_string().as_str()));
    }
}

#[tokio::test]
async fn of_two_calls_at_once_at_two_gateways_one_is_made() {
    let (instance, pieces) = fed().await;
    let platform = Platform::start(&[&instance], Wishes::default()).await;
    let second = platform.second(&[]).await;
    let mut raw = Raw::connect(&platform).await;
    raw.send(&keyed(&platform, "llm-chute", "key-1", &chat(true))).await;
    pieces.send(content("one")).await.unwrap();
    raw.read_until("one").await;
    for port in [second.http, platform.http] {
        let got = call_at(port, &platform, "key-1", &chat(true)).await;
        assert_eq!((got.status, code(&got).as_str()), (409, "idempotency_key_in_use"));
        assert_eq!(got.field("retry-after"), Some("2"));
    }
    pieces.send(DONE.into()).await.unwrap();
    drop(pieces);
    let first = raw.answer().await;
    assert_eq!(first.text(), content("one") + DONE);
    assert_replayed(&call_until_over(second.http, &platform, "key-1", &chat(true)).await, &first);
    assert_eq!(records_in_all(&platform, second.http, 1).await[0].outcome, Outcome::Finished);
}

#[tokio::test]
async fn of_many_calls_at_once_one_is_made() {
    let scripted = Scripted::start([Act::Stream(answer())]).await;
    let platform = Platform::start(&[&scripted], Wishes::default()).await;
    let second = platform.second(&[]).await;
    let ports = [platform.http, second.http].into_iter().cycle().take(16);
    let body = chat(true);
    let got = futures::future::join_all(ports.map(|port| call_until_over(port, &platform, "key-1", &body))).await;
    for got in &got {
        assert_eq!((got.status, got.text()), (200, answer().concat()));
    }
    assert_eq!(got.iter().filter(|got| got.field("idempotent-replayed").is_none()).count(), 1);
    assert_eq!(scripted.asked(), 1);
    assert_eq!(records_in_all(&platform, second.http, 1).await.len(), 1);
}

#[tokio::test]
async fn a_call_that_failed_is_made_anew() {
    for (act, status) in
        [(Act::Error(500, "oh"), 502), (Act::Error(422, "{}"), 422), (Act::Die(vec![content("x")]), 200)]
    {
        let scripted = Scripted::start([act, Act::Stream(answer())]).await;
        let platform = Platform::start(&[&scripted], Wishes::default()).await;
        let failed = call_at(platform.http, &platform, "key-1", &chat(true)).await;
        assert_eq!(failed.status, status);
        let got = call_until_over(platform.http, &platform, "key-1", &chat(true)).await;
        assert_eq!((got.status, got.text(), got.field("idempotent-replayed")), (200, answer().concat(), None));
        let records = records_in_all(&platform, platform.http, 2).await;
        assert_eq!([records[0].outcome, records[1].outcome], [Outcome::Failed, Outcome::Finished]);
    }
}

#[tokio::test]
async fn a_key_stands_for_one_request() {
    let script = [Act::Stream(answer()), Act::Json("{}".into()), Act::Stream(answer())];
    let scripted = Scripted::start(script).await;
    let platform = Platform::start(&[&scripted], Wishes::default()).await;
    let mut raw = Raw::connect(&platform).await;
    assert_eq!(call_at(platform.http, &platform, "key-1", &chat(true)).await.status, 200);
    for (label, body) in [("llm-chute", chat(false)), ("llm-chute", chat(true) + " "), ("llm", chat(true))] {
        raw.send(&keyed(&platform, label, "key-1", &body)).await;
        let got = raw.answer().await;
        assert_eq!((got.status, code(&got).as_str()), (422, "idempotency_key_reused"));
    }
    let thinking = String::from_utf8(keyed(&platform, "llm-chute", "key-1", &chat(true))).unwrap();
    let thinking = thinking.replacen("Host:", "X-Enable-Thinking: true\r\nHost:", 1).into_bytes();
    let query = keyed_at(&platform, "llm-chute", &format!("{CHAT}?a=b"), "key-1", &chat(true));
    for other in [thinking, query] {
        raw.send(&other).await;
        assert_eq!(raw.answer().await.status, 422);
    }
    for (path, status) in [("/run", 200), ("/lines", 422)] {
        raw.send(&keyed_at(&platform, "own-chute", path, "key-3", "{}")).await;
        assert_eq!(raw.answer().await.status, status, "{path}");
    }
    assert_eq!(call_at(platform.http, &platform, "key-2", &chat(true)).await.field("idempotent-replayed"), None);
    raw.send(&keyed(&platform, "llm-chute", "two words", &chat(true))).await;
    assert_eq!(raw.answer().await.status, 400);
}

#[tokio::test]
async fn a_key_belongs_to_a_user_whichever_credential_he_uses() {
    let scripted = Scripted::start([Act::Stream(answer())]).await;
    let mut platform = Platform::start(&[&scripted], Wishes::default()).await;
    let first = call_at(platform.http, &platform, "key-1", &chat(true)).await;
    platform.key = platform.another_key(platform.user);
    assert_replayed(&call_until_over(platform.http, &platform, "key-1", &chat(true)).await, &first);
    platform.key = platform.another_key(UserId::random());
    let others = call_at(platform.http, &platform, "key-1", &chat(true)).await;
    assert_eq!((others.status, others.field("idempotent-replayed")), (200, None));
    assert_replayed(&call_until_over(platform.http, &platform, "key-1", &chat(true)).await, &others);
    assert_ne!(others.field("x-chutes-invocationid"), first.field("x-chutes-invocationid"));
    assert_eq!(scripted.asked(), 2);
}

#[tokio::test]
async fn a_client_that_left_gets_the_whole_answer_when_it_asks_again_and_pays_once() {
    for before_the_first_piece in [false, true] {
        let (instance, pieces) = fed().await;
        let platform = Platform::start(&[&instance], wishes(&["--keepalive=0.1"])).await;
        let second = platform.second(&[]).await;
        let mut raw = Raw::connect(&platform).await;
        raw.send(&keyed(&platform, "llm-chute", "key-1", &chat(true))).await;
        if before_the_first_piece {
            raw.read_until(": keepalive").await;
        } else {
            pieces.send(content("one")).await.unwrap();
            raw.read_until("one").await;
        }
        drop(raw);
        assert_eq!(call_at(second.http, &platform, "key-1", &chat(true)).await.status, 409);
        if before_the_first_piece {
            pieces.send(content("one")).await.unwrap();
        }
        pieces.send(content("two")).await.unwrap();
        pieces.send(DONE.into()).await.unwrap();
        drop(pieces);
        let got = call_until_over(second.http, &platform, "key-1", &chat(true)).await;
        assert_eq!((got.text(), got.field("idempotent-replayed")), (answer().concat(), Some("true")));
        assert_eq!((instance.asked(), *instance.abandoned.borrow()), (1, 0));
        let record = records_in_all(&platform, second.http, 1).await.remove(0);
        assert_eq!((record.outcome, record.delivered, record.facts.tokens), (Outcome::Finished, true, 2));
    }
}

#[tokio::test]
async fn what_came_after_a_client_had_left_is_not_billed_if_nobody_can_get_it() {
    // The answer is lost because its time is over, because it is too large, because there is no room for it.
    for setting in ["--idempotent-run-on=1", "--idempotent-answer=1000", "--idempotent-answers=16384"] {
        let (instance, pieces) = fed().await;
        let platform = Platform::start(&[&instance], wishes(&[setting])).await;
        let mut raw = Raw::connect(&platform).await;
        raw.send(&keyed(&platform, "llm-chute", "key-1", &chat(true))).await;
        for text in ["one", "two", "three", "four", "five"] {
            pieces.send(content(text)).await.unwrap();
        }
        raw.read_until("five").await;
        drop(raw);
        for text in ["six", "seven", &"x".repeat(2000)] {
            pieces.send(content(text)).await.unwrap();
        }
        instance.abandoned.clone().wait_for(|abandoned| *abandoned == 1).await.unwrap();
        let got = call_until_over(platform.http, &platform, "key-1", &chat(true)).await;
        assert_eq!((got.status, code(&got).as_str()), (410, "answer_not_kept"), "{setting}");
        let record = records_in_all(&platform, platform.http, 1).await.remove(0);
        let told = (record.outcome, record.delivered, record.facts.tokens);
        assert_eq!(told, (Outcome::Aborted, true, 5), "{setting}");
    }
}

#[tokio::test]
async fn an_answer_in_one_piece_that_nobody_got_and_nobody_can_get_is_not_billed_and_made_anew() {
    let lost = Act::Late(
        Duration::from_secs(1),
        r#"{"choices":[{"message":{"content":"TEXT"}}]}"#.replace("TEXT", &"x".repeat(2000)),
    );
    let scripted = Scripted::start([lost, Act::Json("{}".into()), Act::Stream(answer())]).await;
    let platform = Platform::start(&[&scripted], wishes(&["--idempotent-answer=1000"])).await;
    let mut raw = Raw::connect(&platform).await;
    raw.send(&keyed(&platform, "llm-chute", "key-1", &chat(false))).await;
    eventually("the instance is asked", async || scripted.asked() == 1).await;
    drop(raw);
    let got = call_until_over(platform.http, &platform, "key-1", &chat(false)).await;
    assert_eq!((got.status, got.text().as_str(), got.field("idempotent-replayed")), (200, "{}", None));
    let records = records_in_all(&platform, platform.http, 2).await;
    let told = |record: &Record| (record.outcome, record.delivered, record.facts.tokens);
    assert_eq!(told(&records[0]), (Outcome::Aborted, false, 0));
    assert_eq!((records[1].outcome, records[1].delivered), (Outcome::Finished, true));
}

#[tokio::test]
async fn a_client_that_left_is_waited_for_so_long_and_no_longer() {
    let (instance, pieces) = fed().await;
    let platform = Platform::start(&[&instance], wishes(&["--idempotent-run-on=0.3"])).await;
    let mut raw = Raw::connect(&platform).await;
    raw.send(&keyed(&platform, "llm-chute", "key-1", &chat(true))).await;
    pieces.send(content("one")).await.unwrap();
    raw.read_until("one").await;
    drop(raw);
    instance.abandoned.clone().wait_for(|abandoned| *abandoned == 1).await.unwrap();
    let got = call_until_over(platform.http, &platform, "key-1", &chat(true)).await;
    assert_eq!((got.status, code(&got).as_str()), (410, "answer_not_kept"));
    let record = records_in_all(&platform, platform.http, 1).await.remove(0);
    assert_eq!((record.outcome, record.delivered, record.facts.tokens), (Outcome::Aborted, true, 1));
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_delivered_but_not_kept_and_not_made_again() {
    let scripted = Scripted::start([Act::Stream(answer())]).await;
    let platform = Platform::start(&[&scripted], wishes(&["--idempotent-answer=100"])).await;
    assert_eq!(call_at(platform.http, &platform, "key-1", &chat(true)).await.text(), answer().concat());
    let got = call_until_over(platform.http, &platform, "key-1", &chat(true)).await;
    assert_eq!((got.status, code(&got).as_str(), scripted.asked()), (410, "answer_not_kept", 1));
}

#[tokio::test]
async fn without_room_for_answers_only_calls_with_a_key_are_refused() {
    let scripted = Scripted::start([Act::Stream(answer())]).await;
    // An eighth of it has room for one call.
    let mut platform = Platform::start(&[&scripted], wishes(&["--idempotent-answers=16384"])).await;
    let first = call_at(platform.http, &platform, "key-1", &chat(true)).await;
    assert_replayed(&call_until_over(platform.http, &platform, "key-1", &chat(true)).await, &first);
    let got = call_at(platform.http, &platform, "key-2", &chat(true)).await;
    assert_eq!((got.status, code(&got).as_str()), (429, "answers_full"));
    let wait: u64 = got.field("retry-after").unwrap().parse().unwrap();
    assert!((1..=601).contains(&wait), "{wait}");
    platform.key = platform.another_key(UserId::random());
    assert_eq!(call_at(platform.http, &platform, "key-2", &chat(true)).await.status, 200);
    assert_eq!(ask(&platform, "POST", "llm-chute", CHAT, &chat(true)).await.status, 200);
}

#[tokio::test]
async fn an_answer_is_kept_for_its_time() {
    let scripted = Scripted::start([Act::Stream(answer())]).await;
    let platform = Platform::start(&[&scripted], wishes(&["--idempotent=1"])).await;
    call_at(platform.http, &platform, "key-1", &chat(true)).await;
    let deadline = tokio::time::Instant::now() + LONGEST;
    while scripted.asked() == 1 {
        assert!(tokio::time::Instant::now() < deadline, "the answer is kept for ever");
        call_until_over(platform.http, &platform, "key-1", &chat(true)).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn without_redis_only_calls_with_a_key_are_refused() {
    let scripted = Scripted::start([Act::Stream(answer())]).await;
    let mut platform = Platform::start(&[&scripted], Wishes::default()).await;
    assert_eq!(ask(&platform, "POST", "llm-chute", CHAT, &chat(true)).await.status, 200);
    platform.redis.freeze();
    let got = call_at(platform.http, &platform, "key-1", &chat(true)).await;
    assert_eq!((got.status, code(&got).as_str(), got.field("retry-after")), (503, "not_ready", Some("1")));
    assert_eq!(ask(&platform, "POST", "llm-chute", CHAT, &chat(true)).await.status, 200);
    platform.redis.thaw();
    platform.redis.kill();
    let got = call_at(platform.http, &platform, "key-2", &chat(true)).await;
    assert_eq!((got.status, code(&got).as_str()), (503, "not_ready"));
    assert_eq!(scripted.asked(), 2);
}

/// A keyed call at whose end Redis is silent; its client has all but the end of its answer.
async fn ends_without_redis() -> (Scripted, Platform, Raw) {
    let (instance, pieces) = fed().await;
    let platform = Platform::start(&[&instance], Wishes::default()).await;
    let mut raw = Raw::connect(&platform).await;
    raw.send(&keyed(&platform, "llm-chute", "key-1", &chat(true))).await;
    pieces.send(content("one")).await.unwrap();
    raw.read_until("one").await;
    platform.redis.freeze();
    pieces.send(DONE.into()).await.unwrap();
    drop(pieces);
    (instance, platform, raw)
}

#[tokio::test]
async fn what_came_of_a_call_is_kept_although_redis_was_away_at_its_end() {
    let (instance, platform, mut raw) = ends_without_redis().await;
    let first = raw.answer().await;
    assert_eq!((first.text(), first.complete), (content("one") + DONE, true));
    tokio::time::sleep(GIVEN_UP).await;
    platform.redis.thaw();
    assert_replayed(&call_until_over(platform.http, &platform, "key-1", &chat(true)).await, &first);
    assert_eq!(instance.asked(), 1);
    platform.is_idle().await;
    assert_eq!(platform.metric("chutes_gateway_idempotent_total{result=\"forgotten\"}").await, 0.0);
}

#[tokio::test]
async fn connections_to_redis_that_broke_are_opened_anew_for_the_next_call() {
    let scripted = Scripted::start([Act::Json(large())]).await;
    let platform = Platform::start(&[&scripted], Wishes::default()).await;
    let first = call_at(platform.http, &platform, "key-1", &chat(false)).await;
    for _ in 0..2 {
        assert_replayed(&call_until_over(platform.http, &platform, "key-1", &chat(false)).await, &first);
        let ours = connected(&platform, |client| client.contains(" cmd=eval ") || client.contains(" cmd=get "));
        assert_eq!(ours.len(), 2, "one for claims, one for what is large");
        for id in ours {
            redis::cmd("CLIENT").arg("KILL").arg("ID").arg(id).exec(&mut platform.redis.connection()).unwrap();
        }
    }
    assert_eq!(scripted.asked(), 1);
}

#[tokio::test]
async fn a_client_that_has_its_answer_goes_on_while_redis_is_silent() {
    let (_instance, platform, mut raw) = ends_without_redis().await;
    assert!(raw.answer().await.complete);
    platform.is_idle().await;
    raw.send(&request(&platform, "POST", "llm-chute", CHAT, &chat(true))).await;
    let next = tokio::time::timeout(LONGEST, raw.answer()).await.expect("the connection is read on");
    assert_eq!((next.status, next.text()), (200, answer().concat()));
    assert_eq!(platform.metric("chutes_gateway_idempotent_total{result=\"forgotten\"}").await, 0.0);
}

#[tokio::test]
async fn a_gateway_that_stops_still_tells_redis_what_came_of_a_call() {
    let (instance, pieces) = fed().await;
    let mut platform = Platform::start(&[&instance], Wishes::default()).await;
    let second = platform.second(&[]).await;
    let mut raw = Raw::connect(&platform).await;
    raw.send(&keyed(&platform, "llm-chute", "key-1", &chat(true))).await;
    pieces.send(content("one")).await.unwrap();
    raw.read_until("one").await;
    platform.redis.freeze();
    pieces.send(DONE.into()).await.unwrap();
    drop(pieces);
    let first = raw.answer().await;
    platform.terminate();
    assert!(raw.closes().await);
    let ended = tokio::time::timeout(TOLD_TO_STOP, platform.ended()).await;
    assert!(ended.is_err(), "it ended before redis knew of the call");
    platform.redis.thaw();
    assert!(platform.ended().await);
    assert_replayed(&call_until_over(second.http, &platform, "key-1", &chat(true)).await, &first);
}

#[tokio::test]
async fn a_call_whose_gateway_was_killed_before_it_answered_is_made_anew_once_its_claim_has_run_out() {
    let (instance, _pieces) = fed().await;
    let settings = ["--idempotent-claim=1".to_owned()];
    let mut platform = Platform::start(&[&instance], wishes(&["--idempotent-claim=1"])).await;
    let second = platform.second(&settings).await;
    let mut raw = Raw::connect(&platform).await;
    raw.send(&keyed(&platform, "llm-chute", "key-1", &chat(true))).await;
    eventually("the instance is asked", async || instance.requests.lock().unwrap().len() == 1).await;
    platform.kill().await;
    let got = call_until_over(second.http, &platform, "key-1", &chat(true)).await;
    assert_eq!((got.status, got.text(), got.field("idempotent-replayed")), (200, answer().concat(), None));
    let records = platform.records(2).await;
    let lost = records.iter().find(|record| record.outcome == Outcome::Lost).unwrap();
    assert_eq!((records.len(), lost.delivered), (2, false), "nothing is billed twice");
}

#[tokio::test]
async fn a_call_whose_gateway_was_killed_while_it_answered_is_never_made_anew() {
    let (instance, pieces) = fed().await;
    let settings = ["--idempotent-claim=1".to_owned()];
    let mut platform = Platform::start(&[&instance], wishes(&["--idempotent-claim=1"])).await;
    let second = platform.second(&settings).await;
    let mut raw = Raw::connect(&platform).await;
    raw.send(&keyed(&platform, "llm-chute", "key-1", &chat(true))).await;
    pieces.send(content("one")).await.unwrap();
    raw.read_until("one").await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(call_at(second.http, &platform, "key-1", &chat(true)).await.status, 409, "the claim is renewed");
    platform.kill().await;
    let got = call_until_over(second.http, &platform, "key-1", &chat(true)).await;
    assert_eq!((got.status, code(&got).as_str()), (410, "answer_not_kept"));
    let records = platform.records(1).await;
    let [lost] = &records[..] else { panic!("{records:?}") };
    assert_eq!((lost.outcome, lost.delivered, lost.facts.tokens), (Outcome::Lost, true, 1));
    assert_eq!(instance.requests.lock().unwrap().len(), 1, "it was made twice");
}

/// An answer of several MiB, more than is on the way to a client with room for little.
fn large() -> String {
    let numbers: Vec<String> = (0..400_000).map(|number: u32| number.wrapping_mul(2_654_435_761).to_string()).collect();
    format!(r#"{{"choices":[],"numbers":[{}]}}"#, numbers.join(","))
}

/// Of those who are connected to Redis, the numbers of some.
fn connected(platform: &Platform, wanted: impl Fn(&str) -> bool) -> Vec<u64> {
    let all: String = redis::cmd("CLIENT").arg("LIST").query(&mut platform.redis.connection()).unwrap();
    let wanted = all.lines().filter(|client| wanted(client));
    wanted.map(|client| client.split([' ', '=']).nth(1).unwrap().parse().unwrap()).collect()
}

/// Calls of users the gateway has not heard of, until `done`; the most memory it had in use meanwhile.
async fn strangers(platform: &Platform, done: impl Future) -> usize {
    let known = request(platform, "POST", "llm-chute", CHAT, &chat(false));
    let mut most = 0;
    let served = async {
        loop {
            let stranger = platform.another_key(UserId::random());
            let mut raw = Raw::connect(platform).await;
            raw.send(String::from_utf8(known.clone()).unwrap().replace(&platform.key, &stranger).as_bytes()).await;
            assert_eq!(raw.answer().await.status, 200, "a caller who is not known yet");
            most = most.max(platform.resident());
        }
    };
    tokio::select! {
        _ = done => {}
        () = served => {}
    }
    most
}

#[tokio::test]
async fn a_large_answer_repeated_by_many_at_once_takes_little_memory_and_nobody_elses_connection() {
    const READERS: usize = 90;
    const SLOW: usize = 10;
    /// So many of them one user may have on their way at once: a sixteenth of the room.
    const AT_ONCE: usize = 2;
    const ROOM: &str = "--idempotent-answers=167772160";
    const MEMORY: usize = 96 << 20;
    let scripted = Scripted::start([Act::Json(large()), Act::Json("{}".into())]).await;
    let platform = Platform::start(&[&scripted], wishes(&[ROOM])).await;
    let call = keyed(&platform, "llm-chute", "key-1", &chat(false));
    let first = call_at(platform.http, &platform, "key-1", &chat(false)).await;
    assert_replayed(&call_until_over(platform.http, &platform, "key-1", &chat(false)).await, &first);
    let follower = || connected(&platform, |client| client.contains(" flags=tB "));
    let (followed, before) = (follower(), platform.resident());
    assert_eq!(followed.len(), 1);
    let judge = |got: &Answer| match got.status {
        200 => assert!(got.field("idempotent-replayed").is_some() && got.body == first.body, "another answer"),
        status => assert_eq!((status, code(got).as_str(), got.field("retry-after")), (429, "answers_full", Some("2"))),
    };

    let reading = futures::future::join_all((0..READERS).map(async |_| {
        let mut raw = Raw::connect(&platform).await;
        raw.send(&call).await;
        judge(&raw.answer().await);
    }));
    let most = strangers(&platform, reading).await.saturating_sub(before);
    assert!(most < MEMORY, "{READERS} readers took {most} bytes of memory");

    let mut slow = Vec::new();
    for _ in 0..SLOW {
        let mut raw = Raw::connect_narrow(&platform, 16 << 10).await;
        raw.send(&call).await;
        slow.push(raw);
    }
    let told = futures::future::join_all(slow.iter_mut().map(|raw| {
        raw.read_until(
            "
",
        )
    }));
    let most = strangers(&platform, told).await.saturating_sub(before);
    assert!(most < MEMORY, "{SLOW} slow readers took {most} bytes of memory");
    let mut whole = 0;
    for mut raw in slow {
        let got = raw.answer().await;
        judge(&got);
        whole += usize::from(got.status == 200);
    }
    assert_eq!(whole, AT_ONCE);
    assert_replayed(&call_at(platform.http, &platform, "key-1", &chat(false)).await, &first);
    assert_eq!(follower(), followed, "the connection over which principals are followed broke");
}

#[tokio::test]
async fn what_came_after_a_client_had_left_is_not_billed_when_its_gateway_was_killed() {
    const PIECE: usize = 64 << 10;
    /// More than is on the way from an instance that nobody listens to.
    const PIECES: usize = 400;
    let (instance, pieces) = fed().await;
    let mut platform = Platform::start(&[&instance], wishes(&["--idempotent-answer=50000000"])).await;
    let _second = platform.second(&[]).await;
    let mut raw = Raw::connect(&platform).await;
    raw.send(&keyed(&platform, "llm-chute", "key-1", &chat(true))).await;
    pieces.send(content("one")).await.unwrap();
    raw.read_until("one").await;
    drop(raw);
    for _ in 0..PIECES {
        pieces.send(content(&"x".repeat(PIECE))).await.unwrap();
    }
    platform.kill().await;
    let records = platform.records(1).await;
    let [lost] = &records[..] else { panic!("{records:?}") };
    assert_eq!((lost.outcome, lost.delivered, lost.facts.tokens), (Outcome::Lost, true, 1));
}

fn one_call_a_day(user: &mut UserEntry) {
    user.quotas = BTreeMap::from([(Bucket::Default, 1)]);
}

#[tokio::test]
async fn an_answer_is_given_again_although_the_allowance_is_used_up() {
    let scripted = Scripted::start([Act::Stream(answer())]).await;
    let platform = Platform::start(&[&scripted], Wishes { user: Some(one_call_a_day), ..Wishes::default() }).await;
    let first = call_at(platform.http, &platform, "key-1", &chat(true)).await;
    assert_eq!(first.status, 200);
    assert_replayed(&call_until_over(platform.http, &platform, "key-1", &chat(true)).await, &first);
    for _ in 0..2 {
        let refused = call_until_over(platform.http, &platform, "key-2", &chat(true)).await;
        assert_eq!((refused.status, code(&refused).as_str()), (402, "insufficient_quota"));
    }
}

#[tokio::test]
async fn nothing_of_a_call_stands_in_redis_in_clear() {
    let scripted = Scripted::start([Act::Stream(answer())]).await;
    let platform = Platform::start(&[&scripted], Wishes::default()).await;
    call_at(platform.http, &platform, "my-own-key", &chat(true)).await;
    call_until_over(platform.http, &platform, "my-own-key", &chat(true)).await;
    let mut redis = platform.redis.connection();
    let keys: Vec<String> = redis.keys("idempotent:*").unwrap();
    assert_eq!(keys.len(), 1);
    let value: Vec<u8> = redis.get(&keys[0]).unwrap();
    assert!(value.len() > answer().concat().len());
    for secret in ["one", "choices", "my-own-key", "hello", "event-stream"] {
        assert!(!value.windows(secret.len()).any(|window| window == secret.as_bytes()), "{secret}");
    }
    let seconds: i64 = redis.ttl(&keys[0]).unwrap();
    assert!((1..=600).contains(&seconds));
}
