//! Tests of `pickle`: published bytes, and Python itself where it is installed.

use std::process::Command;

use serde_json::json;

use super::*;

fn keywords_of(value: Value) -> Vec<u8> {
    keywords(value.as_object().unwrap())
}

fn argument(value: &Value) -> String {
    hex::encode(arguments(Some(value)))
}

#[test]
fn the_empty_tuple_and_dictionary_are_what_python_writes() {
    assert_eq!(hex::encode(arguments(None)), "8004292e");
    assert_eq!(hex::encode(keywords_of(json!({}))), "80047d942e");
}

#[test]
fn each_kind_of_value_has_its_golden_bytes() {
    let table = [
        (json!(null), "80044e85942e"),
        (json!(true), "80048885942e"),
        (json!(false), "80048985942e"),
        (json!(0), "80044b0085942e"),
        (json!(255), "80044bff85942e"),
        (json!(256), "80044d000185942e"),
        (json!(65536), "80044a0000010085942e"),
        (json!(-1), "80044affffffff85942e"),
        (json!(2_147_483_648_u32), "80048a0900000080000000000085942e"),
        (json!(u64::MAX), "80048a09ffffffffffffffff0085942e"),
        (json!(i64::MIN), "80048a090000000000000080ff85942e"),
        (json!(1.5), "8004473ff800000000000085942e"),
        (json!("é"), "80048c02c3a99485942e"),
        (json!([]), "80045d9485942e"),
        (json!([null]), "80045d94284e6585942e"),
        (json!({ "a": 1 }), "80047d94288c0161944b017585942e"),
    ];
    for (value, bytes) in table {
        assert_eq!(argument(&value), bytes, "{value}");
    }
}

#[test]
fn a_long_text_has_a_wider_length() {
    let text = "x".repeat(256);
    let expected = format!("80045800010000{}9485942e", "78".repeat(256));
    assert_eq!(argument(&json!(text)), expected);
}

#[test]
fn python_reads_back_what_was_written() {
    let deepest = format!("{}1{}", "[".repeat(127), "]".repeat(127));
    let documents = [
        r#"{"model":"m","messages":[{"role":"user","content":"héllo \u0000 \ud83d\ude00"}],"stream":true,"n":null}"#,
        "[0,1,255,256,65535,65536,-1,-128,2147483647,-2147483648,2147483648,-2147483649,18446744073709551615]",
        "[9223372036854775807,-9223372036854775808,1.5,-0.0,1e300,5e-324,0.1]",
        r#"{"":"","a":{},"b":[],"c":[[],{}],"d":[true,false,null]}"#,
        r#""plain""#,
        &deepest,
        &serde_json::to_string(&"y".repeat(70_000)).unwrap(),
        &serde_json::to_string(&(0..3000).collect::<Vec<_>>()).unwrap(),
    ];
    let script = "import json,pickle,sys\n\
                  for at in range(1,len(sys.argv),2):\n \
                  got=pickle.loads(bytes.fromhex(sys.argv[at]));assert repr(got)==repr((json.loads(sys.argv[at+1]),)),at";
    let mut python = Command::new("python3");
    python.args(["-c", script]);
    for document in documents {
        python.args([argument(&serde_json::from_str(document).unwrap()).as_str(), document]);
    }
    match python.output() {
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => skip_loudly(&error),
    }
}

#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn skip_loudly(error: &std::io::Error) {
    eprintln!("SKIPPED: python3 does not start ({error}); what Python reads was not checked");
}
