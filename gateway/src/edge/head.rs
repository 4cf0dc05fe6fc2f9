//! Reads along the head of an HTTP/1.1 request, to stop it before it is parsed when it grows too large.

/// The largest head that is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Largest {
    /// Bytes in all.
    pub bytes: usize,
    /// Fields.
    pub fields: usize,
}

/// A head as far as it has come.
#[derive(Debug, Default)]
pub(super) struct Head {
    bytes: usize,
    lines: usize,
    /// Bytes of the line that has not ended, but for its carriage return.
    line: usize,
    ended: bool,
}

impl Head {
    /// A head of which so many bytes came unseen: the request line, if no more.
    pub(super) fn begun(bytes: usize) -> Self {
        Self { bytes, lines: 1, ..Self::default() }
    }

    /// Whether anything of it has come.
    pub(super) fn has_begun(&self) -> bool {
        self.bytes > 0
    }

    /// Goes on with these bytes, which may reach past its end; whether it is still one that is taken.
    pub(super) fn read(&mut self, bytes: &[u8], largest: Largest) -> bool {
        for byte in bytes {
            if self.ended {
                return true;
            }
            self.bytes += 1;
            match byte {
                b'\n' => {
                    // Empty lines before the request line are passed over, as the parser does.
                    self.ended = self.line == 0 && self.lines > 0;
                    self.lines += usize::from(self.line > 0);
                    self.line = 0;
                }
                b'\r' => {}
                _ => self.line += 1,
            }
            // The request line is none of the fields.
            if self.bytes > largest.bytes || self.lines > largest.fields + 1 {
                return false;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGEST: Largest = Largest { bytes: 100, fields: 3 };

    fn is_taken(text: &str, piece: usize) -> bool {
        let mut head = Head::default();
        text.as_bytes().chunks(piece).all(|bytes| head.read(bytes, LARGEST))
    }

    #[test]
    fn bytes_that_came_unseen_count_and_an_empty_line_ends_the_head() {
        let mut head = Head::begun(90);
        assert!(head.has_begun() && head.read(b"a: 1\r\n", LARGEST) && !head.read(b"b: 12\r\n", LARGEST));
        let mut head = Head::begun(90);
        assert!(head.read(format!("\r\n{}", "body".repeat(100)).as_bytes(), LARGEST));
    }

    #[test]
    fn fields_and_bytes_of_the_head_count_and_those_of_the_body_do_not() {
        let body = "\nbody\n".repeat(100);
        for (text, taken) in [
            ("GET / HTTP/1.1\r\na: 1\r\nb: 2\r\nc: 3\r\n\r\n".to_owned(), true),
            ("GET / HTTP/1.1\r\na: 1\r\nb: 2\r\nc: 3\r\nd: 4\r\n\r\n".to_owned(), false),
            (format!("POST / HTTP/1.1\r\na: 1\r\n\r\n{body}"), true),
            (format!("\r\n\r\nPOST / HTTP/1.1\na: 1\n\n{body}"), true),
            (format!("GET /{} HTTP/1.1\r\n", "x".repeat(100)), false),
            ("\r\n".repeat(51), false),
        ] {
            for piece in [1, 3, 1000] {
                assert_eq!(is_taken(&text, piece), taken, "{text:?}");
            }
        }
    }
}
