//! Counts what an answer holds while it passes, and keeps back the usage chunk a client did not ask for.
//!
//! What the counters are worth is settled by [`protocol::record::settle`].

use std::time::Duration;

use bytes::Bytes;
use protocol::usage::Kind;

use chunk::Chunk;
pub use chunk::StreamError;

mod chunk;

/// Longest line that is read; a longer one passes unread and counts as one chunk of content.
pub const LONGEST_LINE: usize = 64 * 1024;

/// What was counted so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Chunks with content (streams).
    pub chunks: u64,
    /// Bytes of completion text; all bytes of an answer in one piece that has none to be found.
    pub bytes: u64,
    /// The last usage the instance claimed.
    pub claimed: Option<Claim>,
    /// Time from the start of the attempt to the first chunk with content (streams).
    pub first: Option<Duration>,
}

/// The numbers an instance claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Prompt tokens.
    pub prompt: u64,
    /// Completion tokens.
    pub completion: u64,
}

/// Follows one answer.
#[derive(Debug)]
pub struct Meter {
    counters: Counters,
    kind: Kind,
    stream: Option<Lines>,
    error: Option<StreamError>,
}

/// The lines of a stream of events, which may be split anywhere.
#[derive(Debug)]
struct Lines {
    /// Whether the chunk with only usage is kept back.
    hide_usage: bool,
    /// The line that is not complete yet.
    partial: Vec<u8>,
    /// How much of it the client has.
    relayed: usize,
    /// Whether the line is too long to be read.
    overlong: bool,
    /// Whether the line is the first of its event.
    opens_event: bool,
    /// Whether the event just kept back still lacks its blank line.
    hides_blank: bool,
}

impl Meter {
    /// A meter for an answer of this kind.
    #[must_use]
    pub fn new(kind: Kind, hide_usage: bool) -> Self {
        let lines = Lines {
            hide_usage,
            partial: Vec::new(),
            relayed: 0,
            overlong: false,
            opens_event: true,
            hides_blank: false,
        };
        let stream = (kind == Kind::Stream).then_some(lines);
        Self { counters: Counters::default(), kind, stream, error: None }
    }

    /// Counts a piece that came `at` after the start of the attempt; what of it, and of earlier pieces, the client
    /// gets now. An answer that is no stream is one piece.
    pub fn push(&mut self, piece: &Bytes, at: Duration) -> Bytes {
        let Some(mut lines) = self.stream.take() else {
            if self.kind == Kind::Complete {
                self.count_whole(piece);
            }
            return piece.clone();
        };
        let shown = self.read(&mut lines, piece, at);
        // Without anything to hide the pieces pass as they are, not copied.
        let shown = if lines.hide_usage { Bytes::from(shown) } else { piece.clone() };
        self.stream = Some(lines);
        shown
    }

    /// The rest, when the stream has ended within a line.
    pub fn end(&mut self, at: Duration) -> Bytes {
        let Some(mut lines) = self.stream.take() else { return Bytes::new() };
        let line = std::mem::take(&mut lines.partial);
        let shown = !line.is_empty() && self.judge(&mut lines, &line, at);
        if shown && lines.hide_usage { Bytes::copy_from_slice(&line[lines.relayed..]) } else { Bytes::new() }
    }

    /// What was counted so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The first error the instance sent as an event.
    #[must_use]
    pub fn error(&self) -> Option<&StreamError> {
        self.error.as_ref()
    }

    fn read(&mut self, lines: &mut Lines, piece: &[u8], at: Duration) -> Vec<u8> {
        let mut shown = Vec::with_capacity(lines.partial.len() + piece.len());
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            let complete = part.ends_with(b"\n");
            if lines.overlong {
                shown.extend_from_slice(part);
                lines.overlong = !complete;
                continue;
            }
            if lines.partial.len() + part.len() > LONGEST_LINE {
                self.count_content(at);
                shown.extend_from_slice(&lines.partial[lines.relayed..]);
                shown.extend_from_slice(part);
                lines.pass_unread(complete);
                continue;
            }
            if !complete {
                lines.partial.extend_from_slice(part);
                shown.extend_from_slice(lines.release());
                continue;
            }
            let mut line = std::mem::take(&mut lines.partial);
            line.extend_from_slice(part);
            if self.judge(lines, &line, at) {
                shown.extend_from_slice(&line[lines.relayed..]);
            }
            lines.reuse(line);
        }
        shown
    }

    /// Counts a whole line; whether the client gets it.
    fn judge(&mut self, lines: &mut Lines, line: &[u8], at: Duration) -> bool {
        let blank = matches!(line, b"\n" | b"\r\n");
        let opens_event = std::mem::replace(&mut lines.opens_event, blank);
        let hides_blank = std::mem::take(&mut lines.hides_blank);
        let Some(data) = line.strip_prefix(b"data:").map(<[u8]>::trim_ascii) else { return !(blank && hides_blank) };
        let Some(chunk) = Chunk::read(data) else { return true };
        if chunk.text > 0 {
            self.count_content(at);
        }
        self.counters.bytes = self.counters.bytes.saturating_add(chunk.text);
        self.counters.claimed = chunk.claimed.or(self.counters.claimed);
        let only_usage = chunk.only_usage();
        if self.error.is_none() {
            self.error = chunk.error;
        }
        lines.hides_blank = lines.hide_usage && only_usage && opens_event && lines.relayed == 0;
        !lines.hides_blank
    }

    fn count_whole(&mut self, answer: &[u8]) {
        let chunk = Chunk::read(answer).unwrap_or_default();
        let bytes = if chunk.text > 0 { chunk.text } else { answer.len() as u64 };
        self.counters.bytes = self.counters.bytes.saturating_add(bytes);
        self.counters.claimed = chunk.claimed.or(self.counters.claimed);
    }

    fn count_content(&mut self, at: Duration) {
        self.counters.chunks += 1;
        self.counters.first.get_or_insert(at);
    }
}

impl Lines {
    /// What may be shown of the line that is not complete: nothing while it could be one that is kept back.
    fn release(&mut self) -> &[u8] {
        let could_be_usage = self.hide_usage && self.opens_event && is_start_of(&self.partial, b"data:");
        let could_be_blank = self.hides_blank && self.partial == b"\r";
        let from = self.relayed;
        if !could_be_usage && !could_be_blank {
            self.relayed = self.partial.len();
        }
        &self.partial[from..self.relayed]
    }

    fn pass_unread(&mut self, complete: bool) {
        self.partial.clear();
        self.relayed = 0;
        self.overlong = !complete;
        self.opens_event = false;
        self.hides_blank = false;
    }

    /// Keeps the room of a line that is done with.
    fn reuse(&mut self, mut line: Vec<u8>) {
        line.clear();
        self.partial = line;
        self.relayed = 0;
    }
}

/// Whether one text is the beginning of the other.
fn is_start_of(text: &[u8], mark: &[u8]) -> bool {
    text.iter().zip(mark).all(|(left, right)| left == right)
}

#[cfg(test)]
mod tests;
