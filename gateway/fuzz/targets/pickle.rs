//! Reads the pickles that requests carry, to tell whether they say what they should: strictly the shapes that are written.

use serde_json::{Number, Value};

/// The one argument, if there is any; panics when the bytes are no tuple of at most one.
pub(crate) fn argument(bytes: &[u8]) -> Option<Value> {
    let mut reader = Reader::opened(bytes);
    let only = (reader.0 != b").").then(|| reader.value());
    let end: &[u8] = if only.is_some() { b"\x85\x94." } else { b")." };
    assert_eq!(reader.0, end, "a tuple ends otherwise");
    only
}

/// The keyword arguments; panics when the bytes are anything else.
pub(crate) fn keywords(bytes: &[u8]) -> Value {
    let mut reader = Reader::opened(bytes);
    let entries = reader.value();
    assert!(entries.is_object() && reader.0 == b".", "keywords are no dictionary");
    entries
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn opened(bytes: &'a [u8]) -> Self {
        Self(bytes.strip_prefix(b"\x80\x04").expect("a pickle of protocol 4"))
    }

    fn value(&mut self) -> Value {
        match self.byte() {
            b'N' => Value::Null,
            0x88 => true.into(),
            0x89 => false.into(),
            b'K' => self.byte().into(),
            b'M' => u16::from_le_bytes(self.array()).into(),
            b'J' => i32::from_le_bytes(self.array()).into(),
            0x8a => self.long(),
            b'G' => f64::from_be_bytes(self.array()).into(),
            length @ (0x8c | b'X' | 0x8d) => self.text(length).into(),
            b']' => self.items(b'e', Self::value).into(),
            b'}' => Value::Object(self.items(b'u', Self::entry).into_iter().collect()),
            other => panic!("an opcode {other:#x}"),
        }
    }

    fn long(&mut self) -> Value {
        assert_eq!(self.byte(), 9, "an integer of another width");
        let bytes: [u8; 9] = self.array();
        let mut wide = [if bytes[8] < 0x80 { 0 } else { 0xff }; 16];
        wide[..9].copy_from_slice(&bytes);
        Number::from_i128(i128::from_le_bytes(wide)).expect("an integer that JSON had").into()
    }

    fn text(&mut self, length: u8) -> String {
        let length = match length {
            0x8c => self.byte().into(),
            b'X' => u32::from_le_bytes(self.array()).into(),
            _ => u64::from_le_bytes(self.array()),
        };
        let text = self.take(usize::try_from(length).expect("a length in memory"));
        let text = String::from_utf8(text.to_vec()).expect("a text is UTF-8");
        self.memoized();
        text
    }

    fn items<T>(&mut self, end: u8, item: fn(&mut Self) -> T) -> Vec<T> {
        self.memoized();
        let mut items = Vec::new();
        if self.0[0] == b'(' {
            self.byte();
            while self.0[0] != end {
                items.push(item(self));
            }
            self.byte();
        }
        items
    }

    fn entry(&mut self) -> (String, Value) {
        let length = self.byte();
        (self.text(length), self.value())
    }

    fn memoized(&mut self) {
        assert_eq!(self.byte(), 0x94, "a container or text that is not memoised");
    }

    fn byte(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        self.take(N).try_into().expect("as many as were taken")
    }

    fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        taken
    }
}
