//! What reaches a client, in how many writes, and how a stream ends.

use http::HeaderMap;
use protocol::envelope::instance::{open_request, seal_line};
use protocol::envelope::{Generation, seal_request};
use protocol::sealing::InstanceKey;
use protocol::usage::Kind;

use super::super::downstream::Head;
use super::super::scripted::{ScriptedAnswer, ScriptedClient, Step};
use super::*;

const ONE: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"1\"}}]}\n\n";
const IDLE: Duration = Duration::from_secs(5);

/// What an instance does, in clear.
enum Says {
    Text(&'static str),
    /// The beginning of a sealed line.
    HalfOf(&'static str),
    Pauses,
    Nothing,
    Fails(Failure),
}

fn relay(script: Vec<Says>) -> Relay<ScriptedAnswer> {
    let key = InstanceKey::generate();
    let sealed = seal_request(Generation::Sdk03, &key, "/chat", b"{}", true, &[]).unwrap();
    let iv = open_request(&key, &sealed.path, &sealed.body).unwrap().iv;
    let steps = script.into_iter().map(|says| match says {
        Says::Text(text) => Step::Piece(seal_line(&key, &iv, text.as_bytes())),
        Says::HalfOf(text) => Step::Piece(seal_line(&key, &iv, text.as_bytes())[..20].to_owned()),
        Says::Pauses => Step::Pause,
        Says::Nothing => Step::Silence,
        Says::Fails(failure) => Step::Fail(failure),
    });
    let answer = ScriptedAnswer { pieces: steps.collect(), fields: HeaderMap::new(), until: None };
    Relay::new(answer, Lines::new(sealed.opener), Meter::new(Kind::Stream, false), Instant::now())
}

/// Runs a relay for a client; how it ended, and the chunks counted before each write.
async fn run(relay: &mut Relay<ScriptedAnswer>, client: &mut ScriptedClient) -> (Ended, Vec<u64>) {
    let mut noted = Vec::new();
    let head = Head { status: http::StatusCode::OK, fields: vec![], length: None };
    let mut line = Line::new(client, head, None);
    let mut note = |meter: &Meter, _: bool, _: Option<Duration>| noted.push(meter.counters().chunks);
    let ended = relay.run(&mut line, Bytes::new(), IDLE, &mut note).await;
    (ended, noted)
}

#[tokio::test]
async fn a_stream_that_is_there_faster_than_it_is_relayed_leaves_others_their_turn() {
    const WRITES: usize = 5;
    let full: &str = ONE.repeat(JOINED / ONE.len()).leak();
    let (mut client, mut turns) = (ScriptedClient::default(), 0);
    let mut relay = relay((0..WRITES).map(|_| Says::Text(full)).collect());
    let others = async {
        loop {
            turns += 1;
            yield_now().await;
        }
    };
    let (ended, _) = tokio::select! {
        biased;
        ended = run(&mut relay, &mut client) => ended,
        () = others => unreachable!("it goes on"),
    };
    assert_eq!((ended, client.written.len(), turns), (Ended::Whole, WRITES, WRITES));
}

#[tokio::test]
async fn pieces_that_are_there_at_once_leave_in_one_write() {
    let mut client = ScriptedClient::default();
    let mut relay = relay(vec![Says::Text(ONE), Says::Text(ONE), Says::Pauses, Says::Text(ONE)]);
    let (ended, noted) = run(&mut relay, &mut client).await;
    assert_eq!((ended, client.ended), (Ended::Whole, true));
    assert_eq!(client.written, [Bytes::from(ONE.repeat(2)), Bytes::from_static(ONE.as_bytes())]);
    assert_eq!(noted, [2, 3]);
}

#[tokio::test]
async fn a_client_is_sure_to_get_all_but_the_last_write_that_was_counted_and_the_end() {
    let mut client = ScriptedClient::default();
    let mut relay = relay(vec![Says::Text(ONE), Says::Pauses, Says::Text(ONE), Says::Pauses, Says::Text(ONE)]);
    assert_eq!(run(&mut relay, &mut client).await, (Ended::Whole, vec![1, 2, 3]));
    assert_eq!((client.most_unsent, client.unsent), (1, 0));
}

#[tokio::test]
async fn what_came_before_a_failure_is_delivered_first() {
    let mut client = ScriptedClient::default();
    let mut relay = relay(vec![Says::Text(ONE), Says::Fails(Failure::Closed)]);
    let (ended, noted) = run(&mut relay, &mut client).await;
    assert_eq!((ended, noted), (Ended::Failed(Failure::Closed), vec![1]));
    assert_eq!(client.written.concat(), ONE.as_bytes());
    assert!(!client.ended);
}

#[tokio::test]
async fn a_stream_that_ends_within_a_line_has_not_ended() {
    for pause in [false, true] {
        let mut script = vec![Says::Text(ONE), Says::HalfOf(ONE)];
        if pause {
            script.insert(1, Says::Pauses);
        }
        let mut client = ScriptedClient::default();
        let mut relay = relay(script);
        assert_eq!(run(&mut relay, &mut client).await, (Ended::Failed(Failure::Garbled), vec![1]), "{pause}");
        assert_eq!(client.written.concat(), ONE.as_bytes());
        assert!(!client.ended && !relay.is_ended(), "the client took it for whole");
    }
}

#[tokio::test]
async fn a_client_that_is_gone_gets_nothing_more() {
    let mut client = ScriptedClient { leaves: true, ..ScriptedClient::default() };
    let mut relay = relay(vec![Says::Text(ONE)]);
    assert_eq!(run(&mut relay, &mut client).await, (Ended::Gone, vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_falls_silent_is_given_up() {
    let mut client = ScriptedClient::default();
    let mut relay = relay(vec![Says::Text(ONE), Says::Nothing]);
    assert_eq!(run(&mut relay, &mut client).await.0, Ended::Failed(Failure::Timeout));
}
