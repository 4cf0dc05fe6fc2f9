//! The exports: what miners and chutes named stays in its field, and a reader gets back what was written.

use chrono::{DateTime, Utc};
use control::domain::export::{INVOCATION_COLUMNS, Invocation, REPORT_COLUMNS, Report, Sheet, Unprintable};
use control::domain::literal::{float, literal};
use control::domain::pace::{Metrics, TokenMetrics};
use protocol::ids::{CallId, UserId};
use protocol::signing::Hotkey;
use serde_json::Value;

/// An identifier where it does not matter which.
const ID: &str = "6ba7b812-9dad-11d1-80b4-00c04fd430c8";

/// `data` is the text of fields, a JSON value, measurements in JSON, and a number.
pub(crate) fn run(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        report(text);
        let number = data.first_chunk().map_or(0.0, |bytes| f64::from_le_bytes(*bytes));
        let measured = TokenMetrics { tt: number, ..nothing() };
        let metrics = serde_json::from_str(text).unwrap_or(Metrics::Tokens(measured));
        let (function, error) = text.split_once('|').unwrap_or((text, text));
        for metrics in [Some(metrics), None] {
            invocation(function, error, number, metrics);
        }
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

/// A report with these words as its reason is one line that says them.
fn report(reason: &str) {
    let (call, user): (CallId, UserId) = (ID.parse().expect("a UUID"), ID.parse().expect("a UUID"));
    let report =
        Report { call, user, reported_at: now(), confirmed_at: None, confirmed_by: None, reason: reason.to_owned() };
    let line = line(&REPORT_COLUMNS, |sheet| sheet.push_report(&report)).expect("any text can be written");
    assert_eq!(&line[5], reason, "a field is read as another");
}

/// An attempt of which others named and measured this is one line that says so.
fn invocation(function: &str, error: &str, multiplier: f64, metrics: Option<Metrics>) {
    let row = Invocation {
        call: ID.parse().expect("a UUID"),
        invocation: ID.parse().expect("a UUID"),
        chute: ID.parse().expect("a UUID"),
        chute_owner: ID.parse().expect("a UUID"),
        function: function.to_owned(),
        image: ID.parse().expect("a UUID"),
        image_owner: ID.parse().expect("a UUID"),
        instance: ID.parse().expect("a UUID"),
        miner_uid: -1,
        hotkey: Hotkey::from_public([1; 32]),
        started_at: now(),
        completed_at: now(),
        error: Some(error.to_owned()),
        multiplier,
        bounty: 0,
        metrics,
    };
    let Ok(line) = line(&INVOCATION_COLUMNS, |sheet| sheet.push_invocation(&row)) else {
        assert!(!multiplier.is_finite(), "a row cannot be written");
        return;
    };
    assert_eq!((&line[4], &line[12]), (function, error), "a field is read as another");
    assert_eq!(line[13].parse().map(f64::to_bits), Ok(multiplier.to_bits()), "another multiplier");
    let Some(metrics) = row.metrics else {
        assert_eq!(&line[15], "");
        return;
    };
    let mut reader = Reader(line[15].as_bytes());
    let metrics = serde_json::to_value(metrics).expect("measurements are JSON");
    assert_eq!(reader.value(), sorted(metrics), "measurements say something else");
    assert!(reader.0.is_empty(), "measurements go on");
}

/// The one line that is written, as a reader gets it.
fn line(
    columns: &[&str],
    push: impl FnOnce(&mut Sheet) -> Result<(), Unprintable>,
) -> Result<csv::StringRecord, Unprintable> {
    let mut sheet = Sheet::with_columns(columns)?;
    push(&mut sheet)?;
    let bytes = sheet.take()?;
    let mut reader = csv::ReaderBuilder::new().from_reader(bytes.as_slice());
    let mut lines: Vec<_> =
        reader.records().map(|line| line.expect("a line is UTF-8 and as long as the first")).collect();
    assert_eq!(lines.len(), 1, "a field breaks out of its line");
    Ok(lines.remove(0))
}

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_700_000_000, 0).expect("a time")
}

/// Measurements of an attempt that did nothing.
fn nothing() -> TokenMetrics {
    TokenMetrics {
        it: 0,
        ot: 0,
        tokens: 0,
        ttft: None,
        tt: 0.0,
        tps: None,
        ctps: None,
        mc: 0.0,
        maspt: None,
        ptps: None,
        otps: None,
        nc: None,
    }
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
