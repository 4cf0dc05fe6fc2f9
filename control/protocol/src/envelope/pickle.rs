//! Writes the few Python objects that calls need as pickles of protocol 4; nothing here reads one.
//!
//! Containers and texts are memoised as Python does it, so that the instance's safety check sees the usual shape;
//! frames, which are optional, are left out.

use serde_json::{Map, Number, Value};

const PROTOCOL_4: [u8; 2] = [0x80, 4];
const STOP: u8 = b'.';
const MEMOIZE: u8 = 0x94;
const MARK: u8 = b'(';
const NONE: u8 = b'N';
const TRUE: u8 = 0x88;
const FALSE: u8 = 0x89;
const UINT8: u8 = b'K';
const UINT16: u8 = b'M';
const INT32: u8 = b'J';
const LONG: u8 = 0x8a;
const FLOAT: u8 = b'G';
const TEXT_SHORT: u8 = 0x8c;
const TEXT: u8 = b'X';
const TEXT_LONG: u8 = 0x8d;
const EMPTY_TUPLE: u8 = b')';
const TUPLE_OF_ONE: u8 = 0x85;
const EMPTY_LIST: u8 = b']';
const APPENDS: u8 = b'e';
const EMPTY_DICT: u8 = b'}';
const SET_ITEMS: u8 = b'u';

/// The tuple of positional arguments: none, or one.
pub(super) fn arguments(only: Option<&Value>) -> Vec<u8> {
    let mut out = PROTOCOL_4.to_vec();
    match only {
        None => out.push(EMPTY_TUPLE),
        Some(value) => {
            write_value(&mut out, value);
            out.extend([TUPLE_OF_ONE, MEMOIZE]);
        }
    }
    out.push(STOP);
    out
}

/// The dictionary of keyword arguments.
pub(super) fn keywords(entries: &Map<String, Value>) -> Vec<u8> {
    let mut out = PROTOCOL_4.to_vec();
    write_dictionary(&mut out, entries);
    out.push(STOP);
    out
}

/// Recursion ends because the parser that makes values refuses more than 128 levels.
fn write_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => out.push(NONE),
        Value::Bool(true) => out.push(TRUE),
        Value::Bool(false) => out.push(FALSE),
        Value::Number(number) => write_number(out, number),
        Value::String(text) => write_text(out, text),
        Value::Array(items) => write_list(out, items),
        Value::Object(entries) => write_dictionary(out, entries),
    }
}

fn write_number(out: &mut Vec<u8>, number: &Number) {
    if let Some(integer) = number.as_i128() {
        write_integer(out, integer);
    } else {
        let float = number.as_f64().expect("a number that is no integer is a float");
        out.push(FLOAT);
        out.extend(float.to_be_bytes());
    }
}

fn write_integer(out: &mut Vec<u8>, integer: i128) {
    if let Ok(byte) = u8::try_from(integer) {
        out.extend([UINT8, byte]);
    } else if let Ok(short) = u16::try_from(integer) {
        out.push(UINT16);
        out.extend(short.to_le_bytes());
    } else if let Ok(int) = i32::try_from(integer) {
        out.push(INT32);
        out.extend(int.to_le_bytes());
    } else {
        // Nine bytes of two's complement hold every i64 and every u64.
        out.extend([LONG, 9]);
        out.extend_from_slice(&integer.to_le_bytes()[..9]);
    }
}

fn write_text(out: &mut Vec<u8>, text: &str) {
    if let Ok(length) = u8::try_from(text.len()) {
        out.extend([TEXT_SHORT, length]);
    } else if let Ok(length) = u32::try_from(text.len()) {
        out.push(TEXT);
        out.extend(length.to_le_bytes());
    } else {
        out.push(TEXT_LONG);
        out.extend((text.len() as u64).to_le_bytes());
    }
    out.extend_from_slice(text.as_bytes());
    out.push(MEMOIZE);
}

fn write_list(out: &mut Vec<u8>, items: &[Value]) {
    out.extend([EMPTY_LIST, MEMOIZE]);
    if items.is_empty() {
        return;
    }
    out.push(MARK);
    for item in items {
        write_value(out, item);
    }
    out.push(APPENDS);
}

fn write_dictionary(out: &mut Vec<u8>, entries: &Map<String, Value>) {
    out.extend([EMPTY_DICT, MEMOIZE]);
    if entries.is_empty() {
        return;
    }
    out.push(MARK);
    for (name, value) in entries {
        write_text(out, name);
        write_value(out, value);
    }
    out.push(SET_ITEMS);
}

#[cfg(test)]
mod tests;
