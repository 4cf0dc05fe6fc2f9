//! What may be a key, what is remembered of a call, and that none is billed twice.

use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use proptest::prelude::*;
use protocol::ids::UserId;
use protocol::sealing::{AnswerDigest, DirectoryKey};
use protocol::usage::Outcome;

use super::entry::{Entry, State, remains};
use super::*;

const FIRST: AnswerDigest = AnswerDigest([1; 32]);
const OTHER: AnswerDigest = AnswerDigest([2; 32]);
/// How long a call is believed to run.
const CLAIM: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(1);

fn answer(body: &[u8]) -> Answer {
    let fields = vec![(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    Answer { status: StatusCode::OK, fields, body: Bytes::copy_from_slice(body) }
}

fn headers(values: &[&[u8]]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for value in values {
        headers.append(HEADER, HeaderValue::from_bytes(value).unwrap());
    }
    headers
}

#[test]
fn a_key_is_one_text_of_visible_letters() {
    let longest = [b'k'; 255];
    for good in [b"k".as_slice(), b"stainless-node-retry-1f!~", &longest] {
        assert_eq!(key(&headers(&[good])).unwrap().unwrap().as_bytes(), good);
    }
    assert_eq!(key(&HeaderMap::new()), Ok(None));
    let too_long = [b'k'; 256];
    for bad in [&[b"".as_slice()][..], &[b"a b"], &[b"a\tb"], &[b"\xc3\xa4"], &[&too_long], &[b"a", b"a"]] {
        assert!(matches!(key(&headers(bad)), Err(Refusal::BadRequest(_))), "{bad:?}");
    }
}

#[test]
fn a_call_is_named_by_its_user_and_key_and_told_from_others_by_all_that_is_asked() {
    let secret = DirectoryKey::from_hex(&"11".repeat(32)).unwrap().answer_key();
    let (user, request) = (UserId::random(), [b"host".as_slice(), b"/path", b"query", b"thinking", b"body"]);
    let first = Asked::of(&secret, user, "key-1", &request);
    for (whose, key, same) in [(user, "key-1", true), (UserId::random(), "key-1", false), (user, "key-2", false)] {
        let asked = Asked::of(&secret, whose, key, &request);
        assert_eq!((asked.name == first.name, asked.fingerprint == first.fingerprint), (same, true), "{key}");
    }
    for part in 0..request.len() {
        let mut other = request;
        other[part] = b"";
        let asked = Asked::of(&secret, user, "key-1", &other);
        assert_eq!((asked.name == first.name, asked.fingerprint == first.fingerprint), (true, false), "part {part}");
    }
    let elsewhere = DirectoryKey::from_hex(&"22".repeat(32)).unwrap().answer_key();
    let asked = Asked::of(&elsewhere, user, "key-1", &request);
    assert!(asked.name != first.name && asked.fingerprint != first.fingerprint, "both are under a secret");
}

#[test]
fn each_state_is_read_as_it_was_written() {
    for state in [State::Running, State::Begun, State::NotKept, State::Answered(answer(b"{}\n\n\xff"))] {
        let entry = Entry { fingerprint: FIRST, state };
        assert_eq!(Entry::from_text(entry.to_text()), Some(entry));
    }
    for bad in [b"".as_slice(), b"\n", b"{}\n", b"{\"fingerprint\":\"00\",\"state\":\"running\"}\n"] {
        assert_eq!(Entry::from_text(bad.to_vec()), None);
    }
}

#[test]
fn whoever_repeats_a_call_is_told_by_its_state() {
    for (state, told, told_late) in [
        (State::Running, Err(Again::InFlight), Err(Again::InFlight)),
        (State::Begun, Err(Again::InFlight), Err(Again::NotKept)),
        (State::NotKept, Err(Again::NotKept), Err(Again::NotKept)),
        (State::Answered(answer(b"x")), Ok(answer(b"x")), Ok(answer(b"x"))),
    ] {
        let entry = Entry { fingerprint: FIRST, state };
        assert_eq!(entry.clone().tell(&FIRST, CLAIM - SHORT, CLAIM), told);
        assert_eq!(entry.clone().tell(&FIRST, CLAIM, CLAIM), told_late);
        assert_eq!(entry.tell(&OTHER, CLAIM, CLAIM), Err(Again::OtherRequest));
    }
}

#[test]
fn only_a_call_that_billed_nothing_may_be_made_anew() {
    let kept = || Some(answer(b"x"));
    assert_eq!(remains(None, kept()), None);
    assert_eq!(remains(Some(Outcome::Failed), kept()), None);
    assert_eq!(remains(Some(Outcome::Finished), kept()), Some(State::Answered(answer(b"x"))));
    assert_eq!(remains(Some(Outcome::Finished), None), Some(State::NotKept));
    assert_eq!(remains(Some(Outcome::Aborted), kept()), Some(State::NotKept));
    assert_eq!(remains(Some(Outcome::Lost), None), Some(State::NotKept));
}

/// What happens to one key.
#[derive(Clone, Debug)]
enum Event {
    Asked(AnswerDigest),
    Over(Option<Outcome>, bool),
}

fn event() -> impl Strategy<Value = Event> {
    let outcome = prop::option::of(prop_oneof![
        Just(Outcome::Finished),
        Just(Outcome::Failed),
        Just(Outcome::Aborted),
        Just(Outcome::Lost)
    ]);
    prop_oneof![
        prop_oneof![3 => Just(FIRST), 1 => Just(OTHER)].prop_map(Event::Asked),
        (outcome, any::<bool>()).prop_map(|(outcome, kept)| Event::Over(outcome, kept)),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_a_key_is_billed_at_most_once(events in prop::collection::vec(event(), 0..40)) {
        let (mut held, mut running, mut billed) = (None::<Entry>, None, 0);
        for event in events {
            match event {
                Event::Asked(fingerprint) => match held.clone() {
                    None => {
                        prop_assert_eq!((running, billed), (None, 0), "made beside another or after it was billed");
                        running = Some(fingerprint);
                        held = Some(Entry { fingerprint, state: State::Running });
                    }
                    Some(entry) => {
                        let told = entry.clone().tell(&fingerprint, Duration::ZERO, CLAIM);
                        prop_assert_eq!(told.is_ok(), matches!(entry.state, State::Answered(_)) && entry.fingerprint == fingerprint);
                        prop_assert!(told.is_err() || billed == 1);
                    }
                },
                Event::Over(outcome, kept) => {
                    let Some(fingerprint) = running.take() else { continue };
                    billed += i32::from(matches!(outcome, Some(Outcome::Finished | Outcome::Aborted | Outcome::Lost)));
                    let kept = kept.then(|| answer(b"x"));
                    held = remains(outcome, kept).map(|state| Entry { fingerprint, state });
                }
            }
            prop_assert!(billed <= 1);
        }
    }

    #[test]
    fn no_text_makes_reading_an_entry_panic(text in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Entry::from_text(text);
    }
}
