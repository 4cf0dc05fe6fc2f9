//! A stream of events from an instance: what the client gets and what is counted does not depend on how it was cut.

use std::time::Duration;

use bytes::Bytes;
use gateway::instance::stream::Lines;
use gateway::usage::meter::{Counters, Meter};
use protocol::envelope::instance::{open_request, seal_line};
use protocol::envelope::{Generation, Iv, Opener, seal_request};
use protocol::sealing::InstanceKey;
use protocol::usage::Kind;

/// `data` is a byte for how it is cut, a byte for what is hidden, then the engine's text; or, uncut, hostile lines.
pub(crate) fn run(data: &[u8]) {
    let [cut, hide, text @ ..] = data else { return };
    let key = InstanceKey::from([7; 16]);
    let request = seal_request(Generation::Sdk03, &key, "/chat", b"{}", false, &[]).expect("an empty object is JSON");
    let iv = open_request(&key, &request.path, &request.body).expect("what was sealed opens").iv;
    hostile(request.opener.clone(), text);
    let hide = hide & 1 == 1;
    // One line for each piece of the engine, sealed; then cut anew on the wire.
    let whole = relay(&request.opener, &[sealed(&key, &iv, text, usize::MAX)], hide);
    let size = usize::from(*cut) + 1;
    let wire = sealed(&key, &iv, text, size);
    let pieces: Vec<Vec<u8>> = wire.chunks(size).map(<[u8]>::to_vec).collect();
    let parts = relay(&request.opener, &pieces, hide);
    assert_eq!(whole, parts, "a cut changes the answer");
    if !hide {
        assert_eq!(whole.0, text, "bytes are changed on their way");
    }
    assert!(is_part_of(&whole.0, text), "bytes are made up");
}

fn sealed(key: &InstanceKey, iv: &Iv, text: &[u8], size: usize) -> Vec<u8> {
    let size = size.min(text.len()).max(1);
    text.chunks(size).flat_map(|piece| seal_line(key, iv, piece).into_bytes()).collect()
}

/// What the client gets, and what was counted.
fn relay(opener: &Opener, pieces: &[Vec<u8>], hide: bool) -> (Vec<u8>, Counters) {
    let mut lines = Lines::new(opener.clone());
    let mut meter = Meter::new(Kind::Stream, hide);
    let mut shown = Vec::new();
    for piece in pieces {
        let mut opened = Vec::new();
        lines.push(piece, &mut opened).expect("what was sealed opens");
        for text in &opened {
            shown.extend_from_slice(&meter.push(text, Duration::ZERO));
        }
    }
    lines.end().expect("the last line is whole");
    shown.extend_from_slice(&meter.end(Duration::ZERO));
    (shown, meter.counters())
}

/// Lines that nobody sealed.
fn hostile(opener: Opener, wire: &[u8]) {
    let mut lines = Lines::new(opener);
    let mut opened: Vec<Bytes> = Vec::new();
    // What cannot be opened ends a stream; what can is never longer than what came.
    let _ = lines.push(wire, &mut opened);
    assert!(opened.iter().map(Bytes::len).sum::<usize>() <= wire.len(), "more comes out than went in");
}

/// Whether the first is the second with some bytes left out.
fn is_part_of(part: &[u8], whole: &[u8]) -> bool {
    let mut rest = whole.iter();
    part.iter().all(|byte| rest.any(|other| other == byte))
}
