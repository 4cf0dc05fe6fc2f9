//! The exports: what miners and chutes named stays in its field, and a reader gets back what was written.

use chrono::DateTime;
use control::domain::export::{REPORT_COLUMNS, Report, Sheet};
use control::domain::literal::{float, literal};
use protocol::ids::{CallId, UserId};
use serde_json::Value;

/// `data` is the text of a field, and a JSON value.
pub(crate) fn run(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        field(text);
    }
    if let Ok(value) = serde_json::from_slice::<Value>(data) {
        let text = literal(&value);
        assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "a literal is printable ASCII in one line");
        let mut reader = Reader(text.as_bytes());
        assert_eq!(reader.value(), sorted(value), "a literal says something else");
        assert!(reader.0.is_empty(), "a literal goes on");
    }
    if let Some(bytes) = data.first_chunk::<8>() {
        let number = f64::from_le_bytes(*bytes);
        let read = float(number).map(|text| text.parse::<f64>().expect("a float reads as one").to_bits());
        assert_eq!(read, number.is_finite().then(|| number.to_bits()));
    }
}

/// A reason with these words is one field of one line.
fn field(text: &str) {
    let id = "6ba7b812-9dad-11d1-80b4-00c04fd430c8";
    let call: CallId = id.parse().expect("a UUID");
    let user: UserId = id.parse().expect("a UUID");
    let reported_at = DateTime::from_timestamp(1_700_000_000, 0).expect("a time");
    let report = Report { call, user, reported_at, confirmed_at: None, confirmed_by: None, reason: text.to_owned() };
    let mut sheet = Sheet::with_columns(&REPORT_COLUMNS).expect("columns are a line");
    sheet.push_report(&report).expect("any text can be written");
    let bytes = sheet.take().expect("a sheet in memory can be taken");
    let mut reader = csv::ReaderBuilder::new().from_reader(bytes.as_slice());
    let lines: Vec<_> = reader.records().map(|line| line.expect("a line is UTF-8 and as long as the first")).collect();
    assert_eq!(lines.len(), 1, "a field breaks out of its line");
    assert_eq!(&lines[0][5], text, "a field is read as another");
}

/// The same value with keys in the order of a literal.
fn sorted(value: Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        Value::Object(entries) => {
            let mut entries: Vec<_> = entries.into_iter().collect();
            entries.sort_by_key(|(key, _)| (key.len(), key.as_bytes().to_vec()));
            Value::Object(entries.into_iter().map(|(key, value)| (key, sorted(value))).collect())
        }
        other => other,
    }
}

/// Reads a Python literal of the kind that exports hold.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn value(&mut self) -> Value {
        match self.0[0] {
            b'N' => self.word("None", Value::Null),
            b'T' => self.word("True", Value::Bool(true)),
            b'F' => self.word("False", Value::Bool(false)),
            b'\'' | b'"' => Value::String(self.text()),
            b'[' => Value::Array(self.items(b']', Self::value)),
            b'{' => Value::Object(self.items(b'}', Self::entry).into_iter().collect()),
            _ => self.number(),
        }
    }

    fn word(&mut self, word: &str, value: Value) -> Value {
        self.0 = self.0.strip_prefix(word.as_bytes()).expect("a known word");
        value
    }

    fn items<T>(&mut self, end: u8, item: fn(&mut Self) -> T) -> Vec<T> {
        let mut items = Vec::new();
        self.skip(1);
        while self.0[0] != end {
            items.push(item(self));
            if self.0[0] == b',' {
                self.skip(2);
            }
        }
        self.skip(1);
        items
    }

    fn entry(&mut self) -> (String, Value) {
        let key = self.text();
        self.skip(2);
        (key, self.value())
    }

    fn number(&mut self) -> Value {
        let end = self.0.iter().position(|byte| matches!(byte, b',' | b']' | b'}')).unwrap_or(self.0.len());
        let text = std::str::from_utf8(self.skip(end)).expect("a number is ASCII");
        serde_json::from_str(text).expect("a number")
    }

    fn text(&mut self) -> String {
        let quote = self.skip(1)[0];
        let mut text = String::new();
        loop {
            let byte = self.skip(1)[0];
            match byte {
                b'\\' => text.push(self.escaped()),
                _ if byte == quote => return text,
                _ => text.push(char::from(byte)),
            }
        }
    }

    fn escaped(&mut self) -> char {
        match self.skip(1)[0] {
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'x' => self.code(2),
            b'u' => self.code(4),
            b'U' => self.code(8),
            other => char::from(other),
        }
    }

    fn code(&mut self, digits: usize) -> char {
        let digits = std::str::from_utf8(self.skip(digits)).expect("hex digits are ASCII");
        let code = u32::from_str_radix(digits, 16).expect("hex digits");
        char::from_u32(code).expect("a character")
    }

    fn skip(&mut self, bytes: usize) -> &[u8] {
        let (skipped, rest) = self.0.split_at(bytes);
        self.0 = rest;
        skipped
    }
}
