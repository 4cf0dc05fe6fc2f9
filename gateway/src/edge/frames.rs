//! Finds the frames of HTTP/2 in what one side of a connection says, however its bytes come.

/// Bytes before the payload of a frame.
pub(super) const HEAD: usize = 9;

/// The body of a request or an answer.
pub(super) const DATA: u8 = 0;
/// The first fields of a request or an answer.
pub(super) const HEADERS: u8 = 1;
/// The end of a stream before its time.
pub(super) const RST_STREAM: u8 = 3;
/// More fields.
pub(super) const CONTINUATION: u8 = 9;

/// Of a body: nothing follows.
pub(super) const END_STREAM: u8 = 1;
/// Of fields: none follow.
pub(super) const END_HEADERS: u8 = 4;

/// A frame without its payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    pub(super) length: usize,
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A frame whose payload follows.
    Begins(Frame),
    /// The end of its payload.
    Ends(Frame),
}

/// Where in its sequence of frames one side is.
#[derive(Debug)]
pub(super) struct Frames {
    head: [u8; HEAD],
    /// Bytes of a frame's head that are there.
    known: usize,
    /// The frame whose payload is passed over; none before the first.
    frame: Option<Frame>,
    /// Bytes of it that have still to come.
    rest: usize,
}

impl Frames {
    /// Before the first frame, and before so many other bytes.
    pub(super) fn after(preface: usize) -> Self {
        Self { head: [0; HEAD], known: 0, frame: None, rest: preface }
    }

    /// Whether what comes before the first frame has not come in full.
    pub(super) fn in_preface(&self) -> bool {
        self.frame.is_none() && self.rest > 0
    }

    /// Goes on with these bytes and tells what is in them.
    pub(super) fn read(&mut self, mut bytes: &[u8], mut tell: impl FnMut(Found)) {
        while !bytes.is_empty() {
            let passed = self.rest.min(bytes.len());
            bytes = &bytes[passed..];
            self.rest -= passed;
            if passed > 0
                && self.rest == 0
                && let Some(frame) = self.frame
            {
                tell(Found::Ends(frame));
            }
            let taken = if self.rest > 0 { 0 } else { (HEAD - self.known).min(bytes.len()) };
            self.head[self.known..self.known + taken].copy_from_slice(&bytes[..taken]);
            self.known += taken;
            bytes = &bytes[taken..];
            if self.known == HEAD {
                let frame = self.begin();
                tell(Found::Begins(frame));
                if frame.length == 0 {
                    tell(Found::Ends(frame));
                }
            }
        }
    }

    fn begin(&mut self) -> Frame {
        let [a, b, c, kind, flags, stream @ ..] = self.head;
        let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        let frame = Frame { kind, flags, stream: u32::from_be_bytes(stream) & !(1 << 31), length };
        (self.known, self.rest, self.frame) = (0, length, Some(frame));
        frame
    }
}

/// A frame with a payload of ones, as bytes.
#[cfg(test)]
pub(super) fn written(frame: Frame) -> Vec<u8> {
    let [_, a, b, c] = u32::try_from(frame.length).unwrap().to_be_bytes();
    let head = [&[a, b, c, frame.kind, frame.flags][..], &frame.stream.to_be_bytes()].concat();
    [head, vec![0xff; frame.length]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_found_however_the_bytes_come() {
        let frame = |kind, stream, length| Frame { kind, flags: END_STREAM, stream, length };
        let frames =
            [frame(DATA, 1, 70_000), frame(DATA, 0x7fff_ffff, 0), frame(HEADERS, 3, 1), frame(RST_STREAM, 5, 4)];
        let expected: Vec<Found> =
            frames.iter().flat_map(|frame| [Found::Begins(*frame), Found::Ends(*frame)]).collect();
        let bytes = [b"preface".to_vec(), frames.map(written).concat()].concat();
        for piece in [1, 2, 7, 64, bytes.len()] {
            let (mut reading, mut found) = (Frames::after(7), Vec::new());
            assert!(reading.in_preface());
            bytes.chunks(piece).for_each(|bytes| reading.read(bytes, |one| found.push(one)));
            assert_eq!((&found, reading.in_preface()), (&expected, false), "in pieces of {piece}");
        }
    }

    #[test]
    fn a_payload_ends_with_its_last_byte() {
        let frame = Frame { kind: DATA, flags: 0, stream: 1, length: 3 };
        let (mut reading, mut found) = (Frames::after(0), Vec::new());
        let bytes = written(frame);
        reading.read(&bytes[..HEAD + 2], |one| found.push(one));
        assert_eq!(found, [Found::Begins(frame)]);
        reading.read(&bytes[HEAD + 2..], |one| found.push(one));
        assert_eq!(found, [Found::Begins(frame), Found::Ends(frame)]);
    }
}
