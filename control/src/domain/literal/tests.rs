//! Known texts, and agreement with a real Python where there is one.

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use serde_json::json;

use super::*;
use crate::domain::python;

#[test]
fn metrics_are_printed_as_a_python_dict_with_keys_by_length_then_bytes() {
    let metrics = json!({"tokens": 3, "nc": 5.5, "ttft": null, "it": 12, "b": true, "a": false, "tt": 2.0});
    let expected = "{'a': False, 'b': True, 'it': 12, 'nc': 5.5, 'tt': 2.0, 'ttft': None, 'tokens': 3}";
    assert_eq!(literal(&metrics), expected);
}

#[test]
fn floats_are_printed_as_python_prints_them() {
    let texts = [
        (0.0, "0.0"),
        (-0.0, "-0.0"),
        (5.0, "5.0"),
        (0.1, "0.1"),
        (0.0001, "0.0001"),
        (0.000_01, "1e-05"),
        (1e-7, "1e-07"),
        (1.5e-10, "1.5e-10"),
        (123_456.789, "123456.789"),
        (1e15, "1000000000000000.0"),
        (9_999_999_999_999_998.0, "9999999999999998.0"),
        (7_791_155_298_475_889.0 / 4.0, "1947788824618972.2"),
        (1e16, "1e+16"),
        (-1.25e17, "-1.25e+17"),
        (1e22, "1e+22"),
        (5e-324, "5e-324"),
        (f64::MAX, "1.7976931348623157e+308"),
        (2.0 / 3.0, "0.6666666666666666"),
    ];
    for (value, text) in texts {
        assert_eq!(float(value).as_deref(), Some(text));
        assert_eq!(literal(&json!(value)), text);
    }
}

#[test]
fn numbers_that_are_not_finite_are_never_printed() {
    assert_eq!(float(f64::NAN), None);
    assert_eq!(float(f64::INFINITY), None);
    assert_eq!(literal(&json!({"nc": f64::NAN})), "{'nc': None}");
}

#[test]
fn text_is_quoted_and_escaped_as_python_does() {
    let texts = [
        ("plain", "'plain'"),
        ("it's", "\"it's\""),
        ("both ' and \"", "'both \\' and \"'"),
        ("a\\b\n\r\t\0\x7f", "'a\\\\b\\n\\r\\t\\x00\\x7f'"),
        ("é€😀", "'\\xe9\\u20ac\\U0001f600'"),
    ];
    for (text, expected) in texts {
        assert_eq!(literal(&json!(text)), expected);
    }
}

#[test]
fn python_reads_each_literal_back_as_the_value_it_was_made_from() {
    let values = sample(2_000, || any_value().boxed());
    let lines: String = values.iter().map(|value| format!("{}\t{value}\n", literal(value))).collect();
    let program = "
import ast, json, sys
for line in sys.stdin:
    text, expected = line.rstrip('\\n').split('\\t')
    found, expected = ast.literal_eval(text), json.loads(expected)
    assert found == expected and ascii(found) == text, (text, found, expected)
print('agreed')
";
    python::agrees(program, lines.as_bytes());
}

#[test]
fn python_prints_each_float_with_the_same_text() {
    let values = sample(20_000, || any::<f64>().prop_filter("finite", |value| value.is_finite()).boxed());
    let scaled =
        sample(20_000, || (1u64..10_000_000_000, -12i32..12).prop_map(|(n, e)| n as f64 * 10f64.powi(e)).boxed());
    let quarters = sample(20_000, || (1u64 << 52..1 << 53).prop_map(|n| n as f64 / 8.0).boxed());
    let lines: String = values
        .iter()
        .chain(&scaled)
        .chain(&quarters)
        .map(|value| format!("{} {}\n", value.to_bits(), float(*value).unwrap()))
        .collect();
    let program = "
import struct, sys
for line in sys.stdin:
    bits, text = line.split()
    value = struct.unpack('<d', struct.pack('<Q', int(bits)))[0]
    assert repr(value) == text, (value, text)
print('agreed')
";
    python::agrees(program, lines.as_bytes());
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_filter("finite", |value| value.is_finite()).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "['\"\\\\a-c]{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map("[a-z]{1,6}", inner, 0..6).prop_map(|entries| entries.into_iter().collect()),
        ]
    })
}

fn sample<T>(count: usize, strategy: impl Fn() -> BoxedStrategy<T>) -> Vec<T>
where
    T: std::fmt::Debug,
{
    let mut runner = TestRunner::deterministic();
    let strategy = strategy();
    (0..count).map(|_| strategy.new_tree(&mut runner).unwrap().current()).collect()
}
