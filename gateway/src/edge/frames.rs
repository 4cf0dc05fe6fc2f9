//! Reads along what an HTTP/2 client sends: whether it is within a request head, and how many streams it has reset.

/// What a client says first.
const PREFACE: usize = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len();
/// Bytes before the payload of a frame.
const HEAD: usize = 9;

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// Where a client stands in its sequence of frames.
#[derive(Debug)]
pub(super) struct Frames {
    head: [u8; HEAD],
    /// Bytes of the frame's head that are there.
    known: usize,
    /// Bytes to pass over: the preface, or a payload.
    passing: usize,
    in_head: bool,
    /// Whether the request head ends with the payload that is passed over.
    ends: bool,
    resets: usize,
}

impl Frames {
    /// Before the first byte.
    pub(super) fn new() -> Self {
        Self { head: [0; HEAD], known: 0, passing: PREFACE, in_head: true, ends: true, resets: 0 }
    }

    /// Whether the preface or a request head has begun and not ended.
    pub(super) fn in_head(&self) -> bool {
        self.in_head
    }

    /// Streams reset by the client.
    pub(super) fn resets(&self) -> usize {
        self.resets
    }

    /// Goes on with these bytes.
    pub(super) fn read(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let passed = self.passing.min(bytes.len());
            bytes = &bytes[passed..];
            self.passing -= passed;
            if self.passing > 0 {
                return;
            }
            self.end_payload();
            let taken = (HEAD - self.known).min(bytes.len());
            self.head[self.known..self.known + taken].copy_from_slice(&bytes[..taken]);
            self.known += taken;
            bytes = &bytes[taken..];
            if self.known == HEAD {
                self.begin_payload();
            }
        }
    }

    fn begin_payload(&mut self) {
        let [a, b, c, kind, flags, ..] = self.head;
        self.known = 0;
        self.passing = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        match kind {
            HEADERS | CONTINUATION => {
                self.in_head = true;
                self.ends = flags & END_HEADERS != 0;
            }
            RST_STREAM => self.resets += 1,
            _ => {}
        }
        if self.passing == 0 {
            self.end_payload();
        }
    }

    fn end_payload(&mut self) {
        if self.ends {
            self.in_head = false;
            self.ends = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let [_, a, b, c] = u32::try_from(payload).unwrap().to_be_bytes();
        let head = [a, b, c, kind, flags, 0, 0, 0, 1];
        [&head[..], &vec![0xff; payload]].concat()
    }

    fn after_the_preface() -> Frames {
        let mut frames = Frames::new();
        frames.read(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        frames.read(&frame(4, 0, 0));
        frames
    }

    #[test]
    fn the_preface_is_a_head() {
        let mut frames = Frames::new();
        frames.read(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r");
        assert!(frames.in_head());
        frames.read(b"\n");
        frames.read(&frame(4, 0, 6));
        assert!(!frames.in_head());
    }

    #[test]
    fn a_head_lasts_to_the_end_of_its_last_continuation() {
        let mut frames = after_the_preface();
        let last = frame(CONTINUATION, END_HEADERS, 5);
        for (bytes, in_head) in [
            (frame(HEADERS, 0, 300), true),
            (frame(CONTINUATION, 0, 0), true),
            (last[..HEAD + 4].to_vec(), true),
            (last[HEAD + 4..].to_vec(), false),
            (frame(0, 0, 70_000), false),
            (frame(HEADERS, END_HEADERS, 0), false),
        ] {
            frames.read(&bytes);
            assert_eq!(frames.in_head(), in_head);
        }
    }

    #[test]
    fn resets_are_counted_however_the_bytes_come() {
        let bytes: Vec<u8> = [frame(HEADERS, END_HEADERS, 30), frame(RST_STREAM, 0, 4), frame(0, 1, 3)].concat();
        let bytes = bytes.repeat(50);
        for piece in [1, 2, 7, 64, bytes.len()] {
            let mut frames = after_the_preface();
            bytes.chunks(piece).for_each(|bytes| frames.read(bytes));
            assert_eq!((frames.resets(), frames.in_head()), (50, false), "in pieces of {piece}");
        }
    }
}
