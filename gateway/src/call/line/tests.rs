//! Where comments stand, and that without them nothing is changed.

use std::future::Future;

use http::{HeaderMap, StatusCode};
use proptest::prelude::*;
use protocol::envelope::instance::{open_request, seal_line};
use protocol::envelope::{Generation, seal_request};
use protocol::sealing::InstanceKey;
use protocol::usage::Kind;

use super::super::relay::{Ended, Relay};
use super::super::scripted::{ScriptedAnswer, ScriptedClient, Step};
use super::*;
use crate::instance::stream::Lines;
use crate::instance::verdict::Failure;
use crate::usage::meter::Meter;

const PULSE: Duration = Duration::from_secs(15);
const IDLE: Duration = Duration::from_secs(300);

fn head() -> Head {
    Head { status: StatusCode::OK, fields: vec![], length: None }
}

fn written(client: &ScriptedClient) -> String {
    String::from_utf8(client.written.concat()).unwrap()
}

/// A stream of pieces, each after its pause.
fn relay(pieces: &[(String, Duration)], hide_usage: bool) -> Relay<ScriptedAnswer> {
    let key = InstanceKey::generate();
    let sealed = seal_request(Generation::Sdk03, &key, "/chat", b"{}", true, &[]).unwrap();
    let iv = open_request(&key, &sealed.path, &sealed.body).unwrap().iv;
    let steps = pieces
        .iter()
        .flat_map(|(text, pause)| [Step::Wait(*pause), Step::Piece(seal_line(&key, &iv, text.as_bytes()))]);
    let answer = ScriptedAnswer { pieces: steps.collect(), fields: HeaderMap::new(), until: None };
    Relay::new(answer, Lines::new(sealed.opener), Meter::new(Kind::Stream, hide_usage), std::time::Instant::now())
}

/// What a client has of a stream after a wait of `prefill`, and the chunks that were counted.
async fn relayed(
    pieces: &[(String, Duration)],
    hide_usage: bool,
    prefill: Duration,
    pulse: Option<Duration>,
) -> (String, Ended, u64) {
    let mut client = ScriptedClient::default();
    let mut line = Line::new(&mut client, head(), pulse);
    let mut relay = relay(pieces, hide_usage);
    line.wait(tokio::time::sleep(prefill)).await.unwrap();
    line.begin().await.unwrap();
    let ended = relay.run(&mut line, Bytes::new(), IDLE, &mut |_: &Meter, _, _| ()).await;
    (written(&client), ended, relay.meter().counters().chunks)
}

fn in_paused_time<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(work)
}

#[tokio::test(start_paused = true)]
async fn a_comment_for_each_pulse_of_silence_before_the_first_piece_and_none_without_a_pulse() {
    for (pulse, comments) in [(Some(PULSE), 3), (None, 0)] {
        let mut client = ScriptedClient::default();
        let mut line = Line::new(&mut client, head(), pulse);
        line.wait(tokio::time::sleep(Duration::from_secs(50))).await.unwrap();
        assert_eq!(line.is_begun(), comments > 0);
        assert_eq!(written(&client), ": keepalive\n\n".repeat(comments));
    }
}

#[tokio::test(start_paused = true)]
async fn silence_counts_from_what_the_client_heard_last() {
    let mut client = ScriptedClient::default();
    let mut line = Line::new(&mut client, head(), Some(PULSE));
    line.wait(tokio::time::sleep(Duration::from_secs(14))).await.unwrap();
    line.write(Bytes::from_static(b"data: 1\n\n")).await.unwrap();
    line.wait(tokio::time::sleep(Duration::from_secs(14))).await.unwrap();
    assert_eq!(written(&client), "data: 1\n\n");
}

#[tokio::test(start_paused = true)]
async fn nothing_stands_within_an_event_however_long_it_takes() {
    for piece in ["data: 1", "data: 1\n", "data: 1\r\n", "data: 1\r\n\r", "data: 1\r\r"] {
        let mut client = ScriptedClient::default();
        let mut line = Line::new(&mut client, head(), Some(PULSE));
        line.write(Bytes::from_static(piece.as_bytes())).await.unwrap();
        line.wait(tokio::time::sleep(Duration::from_secs(100))).await.unwrap();
        assert_eq!(written(&client), piece);
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_in_a_silence_is_noticed() {
    let mut client = ScriptedClient { leaves: true, ..ScriptedClient::default() };
    let mut line = Line::new(&mut client, head(), Some(PULSE));
    assert_eq!(line.wait(std::future::pending::<()>()).await, Err(Gone));
}

#[tokio::test]
async fn an_error_within_an_event_closes_the_event_first() {
    for (piece, separated) in [("data: {\"cho", true), ("data: 1\n", true), ("data: 1\n\n", false)] {
        let mut client = ScriptedClient::default();
        let mut line = Line::new(&mut client, head(), None);
        line.write(Bytes::from_static(piece.as_bytes())).await.unwrap();
        line.break_off(&Refusal::Exhausted).await.unwrap();
        let rest = written(&client).strip_prefix(piece).unwrap().to_owned();
        assert_eq!(rest.starts_with("\n\ndata: {\"error\""), separated, "{rest}");
        assert!(client.ended);
    }
}

#[tokio::test(start_paused = true)]
async fn comments_do_not_put_off_the_end_of_a_silent_stream() {
    let silent = [("data: 1\n\n".to_owned(), Duration::ZERO), ("data: 2\n\n".to_owned(), IDLE * 2)];
    let begun = Instant::now();
    let (text, ended, _) = relayed(&silent, false, Duration::ZERO, Some(PULSE)).await;
    assert_eq!(ended, Ended::Failed(Failure::Timeout));
    assert_eq!(begun.elapsed(), IDLE);
    assert_eq!(text.matches(": keepalive").count(), 19);
}

/// One event of an engine, in any of its forms, or a comment of its own.
fn event() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z]{0,9}".prop_map(|text| format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n")),
        Just("data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2}}\n\n".to_owned()),
        Just("event: x\r\ndata: 1\r\n\r\n".to_owned()),
        Just(": ping\n\n".to_owned()),
        Just("\n".to_owned()),
        Just("data: \u{e4}\n".to_owned()),
    ]
}

/// A stream cut anywhere between two characters, with a pause before each piece.
fn chunking() -> impl Strategy<Value = Vec<(String, Duration)>> {
    let pauses = prop_oneof![3 => Just(0_u64), 1 => 0..40_u64];
    let cuts = prop::collection::vec((1..30_usize, pauses.prop_map(Duration::from_secs)), 1..40);
    (prop::collection::vec(event(), 1..8), cuts).prop_map(|(events, cuts)| {
        let text: Vec<char> = events.concat().chars().collect();
        let (mut pieces, mut from) = (Vec::new(), 0);
        for (length, pause) in cuts.iter().cycle().take(text.len()) {
            let to = (from + length).min(text.len());
            if from < to {
                pieces.push((text[from..to].iter().collect(), *pause));
            }
            from = to;
        }
        pieces
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn without_its_comments_a_stream_is_what_it_was(
        pieces in chunking(),
        hide_usage: bool,
        prefill in 0..60_u64,
    ) {
        let prefill = Duration::from_secs(prefill);
        let with = in_paused_time(relayed(&pieces, hide_usage, prefill, Some(PULSE)));
        let without = in_paused_time(relayed(&pieces, hide_usage, prefill, None));
        prop_assert_eq!(with.0.replace(": keepalive\n\n", ""), without.0.clone());
        prop_assert_eq!((with.1, with.2), (without.1, without.2));
        if !hide_usage {
            let sent: String = pieces.iter().map(|(text, _)| text.as_str()).collect();
            prop_assert_eq!(without.0, sent);
        }
        for (at, _) in with.0.match_indices(": keepalive\n\n") {
            let before = &with.0[..at];
            let between = before.is_empty() || before == "\n" || before.ends_with("\n\n") || before.ends_with("\n\r\n");
            prop_assert!(between, "a comment within an event: {before:?}");
        }
        prop_assert!(prefill <= PULSE || with.0.starts_with(": keepalive\n\n"));
    }
}
