//! What an HTTP/2 client has sent: whether it is within a request head, and how many streams it has reset.

use super::frames::{CONTINUATION, END_HEADERS, Found, Frames, HEADERS, RST_STREAM};

/// What a client says first.
const PREFACE: usize = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len();

/// Where a client stands in its sequence of frames.
#[derive(Debug)]
pub(super) struct Received {
    frames: Frames,
    in_fields: bool,
    resets: usize,
}

impl Received {
    /// Before the first byte.
    pub(super) fn new() -> Self {
        Self { frames: Frames::after(PREFACE), in_fields: false, resets: 0 }
    }

    /// Whether the preface or a request head has begun and not ended.
    pub(super) fn in_head(&self) -> bool {
        self.in_fields || self.frames.in_preface()
    }

    /// Streams reset by the client.
    pub(super) fn resets(&self) -> usize {
        self.resets
    }

    /// Goes on with these bytes.
    pub(super) fn read(&mut self, bytes: &[u8]) {
        let (in_fields, resets) = (&mut self.in_fields, &mut self.resets);
        self.frames.read(bytes, |found| match found {
            Found::Begins(frame) if [HEADERS, CONTINUATION].contains(&frame.kind) => *in_fields = true,
            Found::Begins(frame) => *resets += usize::from(frame.kind == RST_STREAM),
            // Of fields only: others may use the same bit for something else.
            Found::Ends(frame) if [HEADERS, CONTINUATION].contains(&frame.kind) => {
                *in_fields = frame.flags & END_HEADERS == 0;
            }
            Found::Ends(_) => {}
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::frames::{DATA, Frame, HEAD, written};
    use super::*;

    fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        written(Frame { kind, flags, stream: 1, length })
    }

    fn after_the_preface() -> Received {
        let mut received = Received::new();
        received.read(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        received.read(&frame(4, 0, 0));
        received
    }

    #[test]
    fn the_preface_is_a_head() {
        let mut received = Received::new();
        received.read(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r");
        assert!(received.in_head());
        received.read(b"\n");
        received.read(&frame(4, 0, 6));
        assert!(!received.in_head());
    }

    #[test]
    fn a_head_lasts_to_the_end_of_its_last_continuation() {
        let mut received = after_the_preface();
        let last = frame(CONTINUATION, END_HEADERS, 5);
        for (bytes, in_head) in [
            (frame(HEADERS, 0, 300), true),
            (frame(CONTINUATION, 0, 0), true),
            (last[..HEAD + 4].to_vec(), true),
            (last[HEAD + 4..].to_vec(), false),
            (frame(DATA, 0, 70_000), false),
            (frame(HEADERS, END_HEADERS, 0), false),
        ] {
            received.read(&bytes);
            assert_eq!(received.in_head(), in_head);
        }
    }

    #[test]
    fn resets_are_counted() {
        let mut received = after_the_preface();
        let bytes = [frame(HEADERS, END_HEADERS, 30), frame(RST_STREAM, 0, 4), frame(DATA, 1, 3)].concat();
        received.read(&bytes.repeat(50));
        assert_eq!((received.resets(), received.in_head()), (50, false));
    }
}
