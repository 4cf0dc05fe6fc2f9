//! Cuts an instance's stream into sealed lines and opens them.

use bytes::{Buf, Bytes, BytesMut};
use protocol::envelope::{EnvelopeError, Opener};

/// Longest line an instance may send; a piece is base64 of one line of an engine.
const LONGEST_LINE: usize = 8 << 20;

/// The opened text of a stream, out of arbitrary cuts of it.
pub struct Lines {
    opener: Opener,
    rest: BytesMut,
    /// How much of `rest` has no line end in it.
    searched: usize,
}

/// Why a stream cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// A line was not sealed for this request.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// A line does not end.
    #[error("a line is longer than {LONGEST_LINE} bytes")]
    TooLong,
    /// The stream ended within a line.
    #[error("the stream ended within a line")]
    Cut,
}

impl Lines {
    /// The lines of the answer to one request.
    #[must_use]
    pub fn new(opener: Opener) -> Self {
        Self { opener, rest: BytesMut::new(), searched: 0 }
    }

    /// Takes in what came and appends to `opened` what can be opened of it.
    ///
    /// # Errors
    /// When a line cannot be opened or is too long; what was opened before it is in `opened`.
    pub fn push(&mut self, piece: &[u8], opened: &mut Vec<Bytes>) -> Result<(), Unreadable> {
        self.rest.extend_from_slice(piece);
        while let Some(length) = self.rest[self.searched..].iter().position(|byte| *byte == b'\n') {
            let line = self.rest.split_to(self.searched + length);
            self.rest.advance(1);
            self.searched = 0;
            self.open(&line, opened)?;
        }
        self.searched = self.rest.len();
        if self.searched > LONGEST_LINE { Err(Unreadable::TooLong) } else { Ok(()) }
    }

    /// Checks that the stream ended where a line did.
    ///
    /// # Errors
    /// When it ended within a line.
    pub fn end(&self) -> Result<(), Unreadable> {
        if self.rest.is_empty() { Ok(()) } else { Err(Unreadable::Cut) }
    }

    fn open(&self, line: &[u8], opened: &mut Vec<Bytes>) -> Result<(), Unreadable> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if !line.is_empty() {
            let text = self.opener.open_line(line)?;
            if !text.is_empty() {
                opened.push(text);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
