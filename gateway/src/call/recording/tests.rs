//! What is recorded, and for how long without the client.

use http::{HeaderValue, StatusCode};

use super::super::scripted::ScriptedClient;
use super::*;
use crate::idempotent::Room;

const RUN_ON: Duration = Duration::from_secs(300);
const LARGEST: usize = 8;

fn head() -> Head {
    let limit = (HeaderName::from_static("x-ratelimit-limit"), HeaderValue::from_static("9"));
    let kind = (CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    Head { status: StatusCode::OK, fields: vec![limit, kind], length: None }
}

fn recording(client: &mut ScriptedClient, room: usize) -> Recording<'_, ScriptedClient> {
    let user = protocol::ids::UserId::random();
    // One user has an eighth of it.
    let share = Room::new(room * 8).take(user, 0, std::time::Instant::now()).ok();
    Recording::new(client, Box::pin(async {}), RUN_ON, LARGEST, share)
}

fn piece(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

#[tokio::test]
async fn an_answer_passes_and_is_kept_without_comments_and_without_what_was_true_once() {
    let mut client = ScriptedClient::default();
    let mut recording = recording(&mut client, 100);
    recording.begin(head()).await.unwrap();
    recording.remark(piece(": x\n\n")).await.unwrap();
    recording.write(piece("one")).await.unwrap();
    recording.write(piece("two")).await.unwrap();
    recording.end().await.unwrap();
    let (answer, _share) = recording.into_answer().unwrap();
    let fields = vec![(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"))];
    assert_eq!(answer, Answer { status: StatusCode::OK, fields, body: piece("onetwo") });
    assert_eq!((client.written.concat(), client.ended), (b": x\n\nonetwo".to_vec(), true));
}

#[tokio::test(start_paused = true)]
async fn the_rest_is_recorded_when_the_client_has_left_but_not_for_ever() {
    for refuses in [false, true] {
        let mut client = ScriptedClient { leaves: !refuses, refuses, ..ScriptedClient::default() };
        let mut recording = recording(&mut client, 100);
        recording.begin(head()).await.unwrap();
        recording.write(piece("one")).await.unwrap();
        let started = Instant::now();
        let waited = tokio::time::timeout(RUN_ON / 2, recording.gone()).await;
        assert!(waited.is_err());
        recording.write(piece("two")).await.unwrap();
        assert!(recording.has_left());
        assert_eq!(recording.reach(), if refuses { Reach::None } else { Reach::All }, "what the client itself has");
        recording.gone().await;
        assert_eq!(started.elapsed(), RUN_ON);
        assert_eq!(recording.into_answer().unwrap().0.body, piece("onetwo"));
        assert_eq!(client.written.len(), usize::from(!refuses));
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_begins_after_the_client_has_left_is_not_said_to_have_begun() {
    for leaves in [true, false] {
        let (mut client, mut begun) = (ScriptedClient { leaves, ..ScriptedClient::default() }, false);
        let share = Room::new(800).take(protocol::ids::UserId::random(), 0, std::time::Instant::now()).ok();
        let begins = Box::pin(async { begun = true });
        let mut recording = Recording::new(&mut client, begins, RUN_ON, LARGEST, share);
        assert!(tokio::time::timeout(RUN_ON / 2, recording.gone()).await.is_err());
        recording.begin(head()).await.unwrap();
        recording.write(piece("one")).await.unwrap();
        assert_eq!(recording.into_answer().unwrap().0.body, piece("one"));
        assert_eq!((begun, client.written.len()), (!leaves, usize::from(!leaves)));
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_said_to_have_begun_before_it_is_over_without_its_client_if_it_is_kept() {
    for kept in [true, false] {
        let (mut client, mut begun) = (ScriptedClient { leaves: true, ..ScriptedClient::default() }, false);
        let share = Room::new(800).take(protocol::ids::UserId::random(), 0, std::time::Instant::now()).ok();
        let begins = Box::pin(async { begun = true });
        let mut recording = Recording::new(&mut client, begins, RUN_ON, LARGEST, share.filter(|_| kept));
        assert_eq!(tokio::time::timeout(RUN_ON / 2, recording.gone()).await.is_err(), kept);
        let began = recording.begin(head()).await;
        assert_eq!((began.is_ok(), recording.end().await.is_ok()), (kept, kept));
        drop(recording);
        assert_eq!((begun, client.ended, client.closes), (kept, false, true));
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_too_large_for_an_answer_or_for_the_room_is_not_kept_and_not_waited_for() {
    for room in [100, 5] {
        let mut client = ScriptedClient { leaves: true, ..ScriptedClient::default() };
        let mut recording = recording(&mut client, room);
        recording.begin(head()).await.unwrap();
        recording.write(piece("12345")).await.unwrap();
        recording.write(piece("6789")).await.unwrap();
        let started = Instant::now();
        recording.gone().await;
        assert_eq!(started.elapsed(), Duration::ZERO);
        assert_eq!(recording.write(piece("x")).await, Err(Gone));
        assert!(recording.into_answer().is_none());
    }
}

#[tokio::test]
async fn what_was_cut_or_never_begun_is_no_answer() {
    let mut client = ScriptedClient::default();
    assert!(recording(&mut client, 100).into_answer().is_none());
    let mut recording = recording(&mut client, 100);
    recording.begin(head()).await.unwrap();
    recording.write(piece("one")).await.unwrap();
    recording.cut().await;
    assert!(recording.into_answer().is_none() && client.closes);
}
