//! Numbers and objects printed the way Python prints them, for readers that parse with `ast.literal_eval`.

use std::fmt::Write as _;

use serde_json::{Number, Value};

/// Prints a JSON value as a Python literal: keys by length then bytes, single quotes, `None`, `True`, `False`.
///
/// Numbers are finite because JSON has no others. Text is printed as Python's `ascii()` does.
#[must_use]
pub fn literal(value: &Value) -> String {
    let mut out = String::new();
    write_value(&mut out, value);
    out
}

/// Prints a float as Python's `repr` does: the shortest digits that read back as the same number.
///
/// `None` for a number that is not finite: no reader of an export can parse it.
#[must_use]
pub fn float(value: f64) -> Option<String> {
    value.is_finite().then(|| python_repr(value))
}

fn write_value(out: &mut String, value: &Value) {
    match value {
        Value::Null => out.push_str("None"),
        Value::Bool(true) => out.push_str("True"),
        Value::Bool(false) => out.push_str("False"),
        Value::Number(number) => out.push_str(&number_text(number)),
        Value::String(text) => write_text(out, text),
        Value::Array(items) => {
            out.push('[');
            for (place, item) in items.iter().enumerate() {
                separate(out, place);
                write_value(out, item);
            }
            out.push(']');
        }
        Value::Object(entries) => {
            let mut entries: Vec<_> = entries.iter().collect();
            entries.sort_by_key(|(key, _)| (key.len(), key.as_bytes().to_vec()));
            out.push('{');
            for (place, (key, item)) in entries.into_iter().enumerate() {
                separate(out, place);
                write_text(out, key);
                out.push_str(": ");
                write_value(out, item);
            }
            out.push('}');
        }
    }
}

fn separate(out: &mut String, place: usize) {
    if place > 0 {
        out.push_str(", ");
    }
}

fn number_text(number: &Number) -> String {
    match number.as_f64() {
        Some(value) if number.is_f64() => python_repr(value),
        Some(_) | None => number.to_string(),
    }
}

/// Fixed notation from 1e-4 up to below 1e16, else an exponent with a sign and at least two digits.
fn python_repr(value: f64) -> String {
    let (digits, exponent) = scientific(&format!("{value:e}"));
    let places = digits.bytes().filter(u8::is_ascii_digit).count() - 1;
    if (-4..16).contains(&exponent) {
        let shift = exponent.unsigned_abs() as usize;
        let decimals = if exponent < 0 { places + shift } else { places.saturating_sub(shift) };
        let fixed = nearest(value, format!("{value:.decimals$}"), || format!("{value}"));
        return if fixed.contains('.') { fixed } else { fixed + ".0" };
    }
    let (mantissa, exponent) = scientific(&nearest(value, format!("{value:.places$e}"), || format!("{value:e}")));
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.unsigned_abs())
}

/// Of two equally short texts Python takes the nearer one, and of two equally near the one with the even digit. That
/// is what rounding to as many digits gives, if it reads back as the same number.
fn nearest(value: f64, rounded: String, shortest: impl FnOnce() -> String) -> String {
    if rounded.parse() == Ok(value) { rounded } else { shortest() }
}

fn scientific(text: &str) -> (String, i32) {
    let (mantissa, exponent) = text.split_once('e').expect("the notation has an exponent");
    (mantissa.to_owned(), exponent.parse().expect("the exponent is a number"))
}

fn write_text(out: &mut String, text: &str) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for character in text.chars() {
        write_character(out, character, quote);
    }
    out.push(quote);
}

fn write_character(out: &mut String, character: char, quote: char) {
    let code = u32::from(character);
    match character {
        '\\' => out.push_str("\\\\"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        _ if character == quote => out.extend(['\\', quote]),
        ' '..='~' => out.push(character),
        _ => {
            match code {
                0..=0xff => write!(out, "\\x{code:02x}"),
                0x100..=0xffff => write!(out, "\\u{code:04x}"),
                0x1_0000.. => write!(out, "\\U{code:08x}"),
            }
            .expect("a String takes all text");
        }
    }
}

#[cfg(test)]
mod tests;
