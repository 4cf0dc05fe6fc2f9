//! Calls through the real executable, from a client's socket to an instance's.

use std::sync::Arc;
use std::time::{Duration, Instant};

use protocol::usage::Outcome;
use tokio::sync::{Mutex, mpsc};

use crate::client::{Raw, ask, chat, content, request};
use crate::instance::{Act, Scripted};
use crate::platform::{Platform, Wishes};

const CHAT: &str = "/v1/chat/completions";
const DONE: &str = "data: [DONE]\n\n";

fn answer() -> Vec<String> {
    vec![content("one"), content("two"), DONE.into()]
}

fn usage(prompt: u64, completion: u64) -> String {
    format!("data: {{\"choices\":[],\"usage\":{{\"prompt_tokens\":{prompt},\"completion_tokens\":{completion}}}}}\n\n")
}

/// An instance whose pieces the test sends.
async fn fed() -> (Scripted, mpsc::Sender<String>) {
    let (sender, receiver) = mpsc::channel(16);
    (Scripted::start([Act::Fed(Arc::new(Mutex::new(receiver)))]).await, sender)
}

#[tokio::test]
async fn a_stream_is_relayed_as_it_is_and_recorded() {
    let scripted = Scripted::start([Act::Stream(answer())]).await;
    let platform = Platform::start(&[&scripted], Wishes::default()).await;
    let got = ask(&platform, "POST", "llm-chute", CHAT, &chat(true)).await;
    assert_eq!((got.status, got.complete), (200, true));
    assert_eq!(got.text(), answer().concat());
    assert_eq!(got.field("content-type"), Some("text/event-stream"));
    assert_eq!(got.field("cache-control"), Some("no-cache"));
    assert_eq!(got.field("x-miner"), None);
    assert_eq!(got.field("x-ratelimit-limit"), Some("600"));
    let record = platform.records(1).await.remove(0);
    assert_eq!(got.field("x-chutes-invocationid"), Some(record.admission.call.to_string().as_str()));
    assert_eq!((record.outcome, record.delivered, record.error), (Outcome::Finished, true, None));
    assert_eq!((record.facts.tokens, record.facts.ot, record.admission.function.as_str()), (2, 2, "chat_stream"));
    assert_eq!(record.admission.multiplier, 1.5);
    assert!(record.facts.ttft.is_some());
}

#[tokio::test]
async fn a_usage_chunk_is_asked_for_counted_and_hidden() {
    let pieces = vec![content("one"), usage(3, 5), DONE.into()];
    let scripted = Scripted::start([Act::Stream(pieces)]).await;
    let platform = Platform::start(&[&scripted], Wishes::default()).await;
    let got = ask(&platform, "POST", "llm", CHAT, &chat(true)).await;
    assert_eq!(got.text(), content("one") + DONE);
    let sent = scripted.requests.lock().unwrap()[0].clone();
    let sent: serde_json::Value = serde_json::from_slice(&sent.body).unwrap();
    assert_eq!(sent["stream_options"]["include_usage"], true);
    let record = platform.records(1).await.remove(0);
    assert_eq!((record.facts.it, record.facts.ot), (3, 5));
}

#[tokio::test]
async fn a_prompt_that_was_answered_before_is_marked_unless_the_gateway_is_told_not_to() {
    for (settings, marks) in [
        (vec![], [false, false, true, false]),
        (vec!["--rerolls=0".into()], [false; 4]),
        (vec!["--reroll=0".into()], [false; 4]),
    ] {
        let scripted = Scripted::start([Act::Error(422, r#"{"detail":"no"}"#), Act::Json("{}".into())]).await;
        let platform = Platform::start(&[&scripted], Wishes { settings, ..Wishes::default() }).await;
        let asked_otherwise = chat(false).replace("hello", "hullo");
        let colder = chat(false).replace("\"stream\"", "\"temperature\":0,\"stream\"");
        // On one connection the next call is read when the one before is over for good.
        let mut raw = Raw::connect(&platform).await;
        for body in [&chat(false), &chat(false), &colder, &asked_otherwise] {
            raw.send(&request(&platform, "POST", "llm-chute", CHAT, body)).await;
            raw.answer().await;
        }
        let records = platform.records(4).await;
        assert_eq!(records.iter().map(|record| record.admission.reroll).collect::<Vec<_>>(), marks);
    }
}

#[tokio::test]
async fn an_answer_in_one_piece_is_opened_and_recorded() {
    let json = r#"{"choices":[{"message":{"content":"hi"}}],"usage":{"prompt_tokens":3,"completion_tokens":2}}"#;
    let scripted = Scripted::start([Act::Json(json.into())]).await;
    let platform = Platform::start(&[&scripted], Wishes::default()).await;
    let got = ask(&platform, "POST", "llm", CHAT, &chat(false)).await;
    assert_eq!((got.status, got.text().as_str()), (200, json));
    assert_eq!(got.field("content-type"), Some("application/json"));
    let record = platform.records(1).await.remove(0);
    assert_eq!((record.outcome, record.facts.it, record.facts.ot), (Outcome::Finished, 3, 2));
}

#[tokio::test]
async fn c13_a_typed_answer_keeps_its_status_and_type() {
    let scripted = Scripted::start([Act::Typed(418, "image/jpeg", vec![0xff, 0xd8, 0x00])]).await;
    let platform = Platform::start(&[&scripted], Wishes::default()).await;
    let got = ask(&platform, "POST", "own-chute", "/run", r#"{"a":1}"#).await;
    assert_eq!((got.status, got.body.as_slice()), (418, &[0xff, 0xd8, 0x00][..]));
    assert_eq!(got.field("content-type"), Some("image/jpeg"));
}

#[tokio::test]
async fn c2_a_stream_that_dies_ends_with_an_error_event_and_no_second_answer() {
    let dying = Scripted::start([Act::Die(vec![content("one")])]).await;
    let platform = Platform::start(&[&dying, &dying], Wishes::default()).await;
    let got = ask(&platform, "POST", "llm-chute", CHAT, &chat(true)).await;
    let text = got.text();
    let rest = text.strip_prefix(&content("one")).unwrap();
    let event: serde_json::Value = serde_json::from_str(rest.strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!(event["error"]["type"], "server_error");
    assert!(got.complete);
    assert_eq!(dying.asked(), 1);
    let record = platform.records(1).await.remove(0);
    assert_eq!((record.outcome, record.error.as_deref()), (Outcome::Failed, Some("CONNECTION_CLOSED")));
    assert_eq!((record.delivered, record.facts.tokens), (true, 1));
}

#[tokio::test]
async fn c1_a_client_that_leaves_closes_the_instance_and_is_recorded_with_what_it_got() {
    let (instance, pieces) = fed().await;
    let platform = Platform::start(&[&instance], Wishes::default()).await;
    let mut raw = Raw::connect(&platform).await;
    raw.send(&request(&platform, "POST", "llm-chute", CHAT, &chat(true))).await;
    pieces.send(content("one")).await.unwrap();
    pieces.send(content("two")).await.unwrap();
    raw.read_until("two").await;
    let left = Instant::now();
    drop(raw);
    instance.abandoned.clone().wait_for(|abandoned| *abandoned == 1).await.unwrap();
    assert!(left.elapsed() < Duration::from_secs(2), "closed after {:?}", left.elapsed());
    let record = platform.records(1).await.remove(0);
    assert_eq!((record.outcome, record.delivered, record.error), (Outcome::Aborted, true, None));
    assert_eq!(record.facts.tokens, 2);
}

#[tokio::test]
async fn a_client_that_leaves_before_the_first_piece_closes_the_instance_too() {
    let (instance, _pieces) = fed().await;
    let platform = Platform::start(&[&instance], Wishes::default()).await;
    let mut raw = Raw::connect(&platform).await;
    raw.send(&request(&platform, "POST", "llm-chute", CHAT, &chat(true))).await;
    while instance.asked() == 0 {
        tokio::task::yield_now().await;
    }
    drop(raw);
    instance.abandoned.clone().wait_for(|abandoned| *abandoned == 1).await.unwrap();
    let record = platform.records(1).await.remove(0);
    assert_eq!((record.outcome, record.delivered, record.error.as_deref()), (Outcome::Aborted, false, Some("ABORTED")));
}

#[tokio::test]
async fn a_client_that_sent_more_than_its_request_is_seen_to_leave() {
    let (instance, _pieces) = fed().await;
    let platform = Platform::start(&[&instance], Wishes::default()).await;
    let mut raw = Raw::connect(&platform).await;
    raw.send(&request(&platform, "POST", "llm-chute", CHAT, &chat(true))).await;
    while instance.asked() == 0 {
        tokio::task::yield_now().await;
    }
    raw.send(b"\r\n").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(*instance.abandoned.borrow(), 0, "the client is still there");
    drop(raw);
    let mut abandoned = instance.abandoned.clone();
    let noticed = tokio::time::timeout(Duration::from_secs(2), abandoned.wait_for(|abandoned| *abandoned == 1)).await;
    noticed.expect("the instance is let go").unwrap();
    let record = platform.records(1).await.remove(0);
    assert_eq!((record.outcome, record.delivered), (Outcome::Aborted, false));
}

#[tokio::test]
async fn a_failed_attempt_goes_on_to_another_instance() {
    for (act, reason) in [
        (Act::Close, "CONNECTION_CLOSED"),
        (Act::Garbage, "GARBLED_ANSWER"),
        (Act::Stream(vec![]), "EMPTY_STREAM"),
        (Act::Error(429, r#"{"detail":"full"}"#), "RATE_LIMIT"),
        (Act::Error(500, "oh"), "SERVER_ERROR"),
        (Act::Error(401, "{}"), "UNAUTHORIZED"),
        (Act::Error(426, "{}"), "KEY_EXCHANGE_REQUIRED"),
        (Act::Error(451, "{}"), "DECRYPTION_FAILED"),
        (Act::Error(404, r#"{"detail":"Bad path: x"}"#), "BAD_PATH"),
        (Act::Error(404, "<html>nothing here</html>"), "GARBLED_ANSWER"),
        (Act::Error(408, "{}"), "TIMEOUT"),
    ] {
        let [first, second] = Scripted::pair([act, Act::Stream(answer())]).await;
        let platform = Platform::start(&[&first, &second], Wishes::default()).await;
        let got = ask(&platform, "POST", "llm-chute", CHAT, &chat(true)).await;
        assert_eq!((got.status, got.text()), (200, answer().concat()), "{reason}");
        let records = platform.records(2).await;
        assert_eq!(records[0].error.as_deref(), Some(reason));
        assert_eq!((records[1].outcome, records[1].error.as_deref()), (Outcome::Finished, None));
        assert_eq!(records[0].admission.call, records[1].admission.call);
        assert_ne!(records[0].admission.instance, records[1].admission.instance);
    }
}

#[tokio::test]
async fn other_client_errors_of_an_instance_are_relayed_in_its_own_words() {
    let body = r#"{"object":"error","message":"too long"}"#;
    let first = Scripted::start([Act::Error(422, body)]).await;
    let platform = Platform::start(&[&first, &first], Wishes::default()).await;
    let got = ask(&platform, "POST", "llm-chute", CHAT, &chat(false)).await;
    assert_eq!((got.status, got.text().as_str(), first.asked()), (422, body, 1));
    let record = platform.records(1).await.remove(0);
    assert_eq!((record.error.as_deref(), record.delivered), (Some("BAD_REQUEST"), false));
}

#[tokio::test]
async fn a_client_error_whose_words_do_not_all_come_keeps_its_status() {
    let large = "x".repeat(70 << 10).leak();
    let short = "HTTP/1.1 413 Too Large\r\nContent-Length: 9\r\n\r\nshort";
    for (act, status) in [(Act::Error(422, large), 422), (Act::Break(short, Duration::ZERO), 413)] {
        let scripted = Scripted::start([act]).await;
        let platform = Platform::start(&[&scripted], Wishes::default()).await;
        let got = ask(&platform, "POST", "llm-chute", CHAT, &chat(false)).await;
        assert_eq!((got.status, got.json()["error"]["code"].as_str()), (status, Some("bad_request")));
        assert_eq!(got.json()["detail"], format!("the instance refused the request with status {status}"));
    }
}

#[tokio::test]
async fn failures_on_every_side_end_in_one_honest_status() {
    for (act, status, code) in [
        (Act::Stream(vec![]), 502, "empty_answer"),
        (Act::Error(429, "{}"), 429, "at_capacity"),
        (Act::Error(503, "{}"), 502, "exhausted"),
        (Act::Garbage, 502, "bad_answer"),
    ] {
        let [first, second] = [Scripted::start([act.clone()]).await, Scripted::start([act]).await];
        let platform = Platform::start(&[&first, &second], Wishes::default()).await;
        let got = ask(&platform, "POST", "llm-chute", CHAT, &chat(true)).await;
        assert_eq!((got.status, got.json()["error"]["code"].as_str()), (status, Some(code)));
        assert!(got.field("x-chutes-invocationid").is_some());
        assert_eq!(first.asked() + second.asked(), 2);
    }
}

#[tokio::test]
async fn an_instance_that_stays_silent_is_given_up_in_time() {
    let scripted = Scripted::start([Act::Stall(vec![])]).await;
    let wishes = Wishes { settings: vec!["--first-chunk=0.2".into()], ..Wishes::default() };
    let platform = Platform::start(&[&scripted], wishes).await;
    let got = ask(&platform, "POST", "llm-chute", CHAT, &chat(true)).await;
    assert_eq!((got.status, got.json()["error"]["code"].as_str()), (504, Some("upstream_timeout")));
    scripted.abandoned.clone().wait_for(|abandoned| *abandoned == 1).await.unwrap();
}

#[tokio::test]
async fn streams_errors_and_whole_answers_give_their_connection_back() {
    let script = [Act::Stream(answer()), Act::Error(400, r#"{"detail":"no"}"#), Act::Json("{}".into())];
    let scripted = Scripted::start(script).await;
    let platform = Platform::start(&[&scripted], Wishes::default()).await;
    for (stream, status) in [(true, 200), (false, 400), (false, 200), (false, 200)] {
        assert_eq!(ask(&platform, "POST", "llm-chute", CHAT, &chat(stream)).await.status, status);
    }
    assert_eq!((scripted.asked(), scripted.connections()), (4, 1));
    let metrics = platform.metrics().await;
    for line in [r#"requests_total{connection="opened"} 1"#, r#"requests_total{connection="kept"} 3"#] {
        assert!(metrics.contains(&format!("chutes_gateway_instance_{line}\n")), "{line}: {metrics}");
    }
}

#[tokio::test]
async fn how_long_and_how_many_connections_are_kept_is_set() {
    for setting in [["--instance-keep", "0"], ["--instance-kept-each", "0"], ["--instance-kept", "0"]] {
        let scripted = Scripted::start([Act::Json("{}".into())]).await;
        let wishes = Wishes { settings: setting.map(str::to_owned).into(), ..Wishes::default() };
        let platform = Platform::start(&[&scripted], wishes).await;
        for _ in 0..3 {
            assert_eq!(ask(&platform, "POST", "llm-chute", CHAT, &chat(false)).await.status, 200);
        }
        assert_eq!((scripted.asked(), scripted.connections()), (3, 3), "{setting:?}");
    }
}

#[tokio::test]
async fn a_kept_connection_that_breaks_under_a_request_is_a_failure_like_any_other() {
    let breaks = [("", Duration::ZERO), ("", Duration::from_millis(300)), ("HTTP/1.1 200 O", Duration::ZERO)];
    for (said, after) in breaks {
        let breaking = Scripted::start([Act::Json("{}".into()), Act::Break(said, after), Act::Json("{}".into())]).await;
        let steady = Scripted::start([Act::Json("{}".into())]).await;
        let platform = Platform::start(&[&breaking, &steady], Wishes::default()).await;
        let mut calls = 0;
        // Either instance may be picked.
        while breaking.asked() < 2 {
            assert_eq!(ask(&platform, "POST", "llm-chute", CHAT, &chat(false)).await.status, 200);
            calls += 1;
        }
        for _ in 0..8 {
            assert_eq!(ask(&platform, "POST", "llm-chute", CHAT, &chat(false)).await.status, 200);
        }
        assert_eq!(breaking.asked(), 2, "neither sent again nor picked again");
        let records = platform.records(calls + 9).await;
        let failed: Vec<_> = records.iter().filter(|record| record.outcome == Outcome::Failed).collect();
        assert_eq!((records.len(), failed.len()), (calls + 9, 1));
        assert_eq!(failed[0].error.as_deref(), Some("CONNECTION_CLOSED"));
    }
}

#[tokio::test]
async fn without_instances_the_call_is_refused_with_a_time_to_come_back() {
    let platform = Platform::start(&[], Wishes::default()).await;
    let got = ask(&platform, "POST", "llm-chute", CHAT, &chat(true)).await;
    assert_eq!((got.status, got.field("retry-after")), (503, Some("10")));
    assert_eq!(got.json()["detail"], format!("No instances available (yet) for chute_id='{}'", platform.llm));
}

#[tokio::test]
async fn a_stopping_gateway_finishes_its_streams_and_ships_their_records() {
    let (instance, pieces) = fed().await;
    let mut platform = Platform::start(&[&instance], Wishes::default()).await;
    let mut raw = Raw::connect(&platform).await;
    raw.send(&request(&platform, "POST", "llm-chute", CHAT, &chat(true))).await;
    pieces.send(content("one")).await.unwrap();
    raw.read_until("one").await;
    platform.terminate();
    while tokio::net::TcpStream::connect(("127.0.0.1", platform.http)).await.is_ok() {
        tokio::task::yield_now().await;
    }
    pieces.send(content("two")).await.unwrap();
    pieces.send(DONE.into()).await.unwrap();
    drop(pieces);
    raw.read_until("[DONE]").await;
    assert!(platform.ended().await);
    let record = platform.records(1).await.remove(0);
    assert_eq!((record.outcome, record.facts.tokens), (Outcome::Finished, 2));
}

#[tokio::test]
async fn calls_to_instances_leave_from_the_address_that_is_set() {
    for (settings, source) in [(vec![], "127.0.0.1"), (vec!["--source=127.0.0.2".to_owned()], "127.0.0.2")] {
        let scripted = Scripted::start([Act::Json("1".into())]).await;
        let platform = Platform::start(&[&scripted], Wishes { settings, ..Wishes::default() }).await;
        assert_eq!(ask(&platform, "POST", "own-chute", "/run", "{}").await.status, 200);
        assert_eq!(*scripted.peers.lock().unwrap(), [source.parse::<std::net::IpAddr>().unwrap()]);
    }
}
