//! How much of the answers on an HTTP/2 connection has left this process: what is in the kernel's hands, its client
//! gets even if this process dies.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::frames::{DATA, END_STREAM, Found, Frames};

/// What of one answer was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Part {
    bytes: u64,
    /// Whether its end was.
    ended: bool,
}

/// The answers on a connection that somebody wants to know about.
#[derive(Debug, Default)]
pub(super) struct Sent(Mutex<Option<HashMap<u32, watch::Sender<Part>>>>);

/// One of them.
#[derive(Debug)]
pub struct Answer {
    sent: Arc<Sent>,
    stream: u32,
    part: watch::Receiver<Part>,
}

/// Reads along what is written on a connection.
#[derive(Debug)]
pub(super) struct Writing {
    frames: Frames,
    /// Written, and perhaps still in a buffer of this process; at most one for each stream.
    unflushed: Vec<(u32, Part)>,
    sent: Arc<Sent>,
}

impl Sent {
    /// Follows an answer; none is followed unless the connection is open.
    #[must_use]
    pub(super) fn follow(self: &Arc<Self>, stream: u32) -> Option<Answer> {
        let (sender, part) = watch::channel(Part::default());
        self.answers().as_mut()?.insert(stream, sender);
        Some(Answer { sent: Arc::clone(self), stream, part })
    }

    fn answers(&self) -> MutexGuard<'_, Option<HashMap<u32, watch::Sender<Part>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Answer {
    /// Waits until so many bytes of its body were sent, and its end if that is wanted; false if that will not be.
    pub async fn has(&mut self, bytes: u64, end: bool) -> bool {
        self.part.wait_for(|part| part.bytes >= bytes && (part.ended || !end)).await.is_ok()
    }

    /// Bytes of its body that were sent.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.part.borrow().bytes
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(answers) = self.sent.answers().as_mut() {
            answers.remove(&self.stream);
        }
    }
}

impl Writing {
    /// On a connection that was just opened.
    pub(super) fn new(sent: Arc<Sent>) -> Self {
        *sent.answers() = Some(HashMap::new());
        Self { frames: Frames::after(0), unflushed: Vec::new(), sent }
    }

    /// These bytes were written.
    pub(super) fn wrote(&mut self, bytes: &[u8]) {
        let unflushed = &mut self.unflushed;
        self.frames.read(bytes, |found| {
            let Found::Ends(frame) = found else { return };
            if frame.kind != DATA {
                return;
            }
            let known = unflushed.iter().position(|(stream, _)| *stream == frame.stream);
            let index = known.unwrap_or(unflushed.len());
            if known.is_none() {
                unflushed.push((frame.stream, Part::default()));
            }
            let part = &mut unflushed[index].1;
            part.bytes += frame.length as u64;
            part.ended |= frame.flags & END_STREAM != 0;
        });
    }

    /// What was written has left this process.
    pub(super) fn flushed(&mut self) {
        if self.unflushed.is_empty() {
            return;
        }
        let answers = self.sent.answers();
        for (stream, more) in self.unflushed.drain(..) {
            if let Some(answer) = answers.as_ref().and_then(|answers| answers.get(&stream)) {
                answer.send_modify(|part| {
                    part.bytes += more.bytes;
                    part.ended |= more.ended;
                });
            }
        }
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        // Whoever waits hears that it waits in vain.
        *self.sent.answers() = None;
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::super::frames::{Frame, HEADERS, written};
    use super::*;

    fn data(stream: u32, length: usize, ends: bool) -> Vec<u8> {
        written(Frame { kind: DATA, flags: if ends { END_STREAM } else { 0 }, stream, length })
    }

    #[test]
    fn what_is_written_counts_once_it_has_left() {
        let sent = Arc::new(Sent::default());
        let mut writing = Writing::new(sent.clone());
        let mut answer = sent.follow(3).unwrap();
        let bytes = [
            written(Frame { kind: HEADERS, flags: END_STREAM, stream: 3, length: 20 }),
            data(3, 10, false),
            data(5, 90, true),
        ];
        writing.wrote(&bytes.concat());
        assert_eq!((answer.has(10, false).now_or_never(), answer.bytes()), (None, 0));
        writing.flushed();
        assert_eq!((answer.has(10, false).now_or_never(), answer.bytes()), (Some(true), 10));
        assert_eq!(answer.has(11, false).now_or_never(), None);
        assert_eq!(answer.has(10, true).now_or_never(), None);
    }

    #[test]
    fn a_frame_counts_with_its_last_byte_and_the_end_with_its_frame() {
        let sent = Arc::new(Sent::default());
        let mut writing = Writing::new(sent.clone());
        let mut answer = sent.follow(1).unwrap();
        let bytes = [data(1, 10, false), data(1, 0, true)].concat();
        writing.wrote(&bytes[..bytes.len() - 10]);
        writing.flushed();
        assert_eq!(answer.has(1, false).now_or_never(), None);
        writing.wrote(&bytes[bytes.len() - 10..bytes.len() - 1]);
        writing.flushed();
        assert_eq!(answer.has(10, false).now_or_never(), Some(true));
        assert_eq!(answer.has(10, true).now_or_never(), None);
        writing.wrote(&bytes[bytes.len() - 1..]);
        writing.flushed();
        assert_eq!(answer.has(10, true).now_or_never(), Some(true));
    }

    #[test]
    fn a_connection_that_ends_leaves_nobody_waiting() {
        let sent = Arc::new(Sent::default());
        let mut writing = Writing::new(sent.clone());
        let mut answer = sent.follow(1).unwrap();
        writing.wrote(&data(1, 10, false));
        writing.flushed();
        drop(writing);
        assert_eq!(answer.has(11, false).now_or_never(), Some(false));
        assert_eq!(answer.bytes(), 10, "it is known what was sent before");
        assert!(sent.follow(3).is_none());
    }

    #[test]
    fn an_answer_that_nobody_follows_any_more_is_forgotten() {
        let sent = Arc::new(Sent::default());
        let _writing = Writing::new(sent.clone());
        drop(sent.follow(1).unwrap());
        assert!(sent.answers().as_ref().unwrap().is_empty());
    }
}
