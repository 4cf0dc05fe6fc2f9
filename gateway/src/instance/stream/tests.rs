//! Sealed lines, cut anywhere, whole or not ours.

use protocol::envelope::instance::{open_request, seal_line};
use protocol::envelope::{Generation, seal_request};
use protocol::sealing::InstanceKey;

use super::*;

/// Lines of a request of its own, and what seals for it.
fn lines() -> (Lines, impl Fn(&[u8]) -> String) {
    let key = InstanceKey::generate();
    let sealed = seal_request(Generation::Sdk03, &key, "/chat", b"{}", true, &[]).unwrap();
    let iv = open_request(&key, &sealed.path, &sealed.body).unwrap().iv;
    (Lines::new(sealed.opener), move |text: &[u8]| seal_line(&key, &iv, text))
}

#[test]
fn lines_are_opened_however_they_are_cut() {
    let (mut whole, seal) = lines();
    let wire = [seal(b"data: one\n"), seal(b"\n"), seal(b"data: two\n")].concat();
    for size in 1..wire.len() {
        let mut opened = Vec::new();
        for piece in wire.as_bytes().chunks(size) {
            whole.push(piece, &mut opened).unwrap();
        }
        assert!(whole.end().is_ok());
        assert_eq!(opened.concat(), b"data: one\n\ndata: two\n");
    }
}

#[test]
fn what_was_not_sealed_for_this_request_is_refused() {
    let ((mut lines, _), (_, foreign)) = (self::lines(), self::lines());
    assert!(matches!(lines.push(b"plain text\n", &mut Vec::new()), Err(Unreadable::Envelope(_))));
    assert!(matches!(lines.push(foreign(b"secret").as_bytes(), &mut Vec::new()), Err(Unreadable::Envelope(_))));
}

#[test]
fn what_came_before_a_bad_line_is_kept() {
    let (mut lines, seal) = lines();
    let mut opened = Vec::new();
    assert!(lines.push((seal(b"good") + "bad\n").as_bytes(), &mut opened).is_err());
    assert_eq!(opened, [Bytes::from_static(b"good")]);
}

#[test]
fn a_line_without_end_is_refused_when_it_ends_or_grows_too_long() {
    let (mut lines, seal) = lines();
    lines.push(seal(b"cut").trim_end().as_bytes(), &mut Vec::new()).unwrap();
    assert!(matches!(lines.end(), Err(Unreadable::Cut)));
    let long = vec![b'A'; LONGEST_LINE];
    assert!(matches!(lines.push(&long, &mut Vec::new()), Err(Unreadable::TooLong)));
}
