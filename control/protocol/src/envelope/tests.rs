//! Tests of `envelope`: known answers (PyCryptodome), both sides against each other, hostile answers.

use std::io::Read;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::read::GzDecoder;
use proptest::{prop_assert_eq, proptest};
use serde_json::{Value, json};

use super::instance::{OpenedRequest, open_request, seal_json_reply, seal_line, seal_typed_reply};
use super::*;

const BODY: &[u8] = br#"{"model":"m","stream":true}"#;
const BODY_IV: Iv = *b"\x10\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f";
const PATH_IV: Iv = *b"\x20\x21\x22\x23\x24\x25\x26\x27\x28\x29\x2a\x2b\x2c\x2d\x2e\x2f";
const SEALED_BODY: &str = "101112131415161718191a1b1c1d1e1fypioXOmSELVci61aFGrlvxMJ6Y6IhE5Jzu1m1NNPeuQ=";
const SEALED_PATH: &str =
    "/202122232425262728292a2b2c2d2e2f0a73c5c838edd82a6b205275edbf60553ab0d5bb1333ee96e46f8e17e5f2befa";
/// `data: {"x":1}`, an empty line and `data: [DONE]`, all under the IV of the request.
const SEALED_LINES: [&str; 3] = ["OhmetaX7ptxf40RrXUI7rg==", "CpQLtUFu8EXxw5RYxlPqWg==", "QzOERTdrXPWHkR2KC7rEaA=="];

fn key() -> InstanceKey {
    InstanceKey::from(std::array::from_fn(|at| at as u8))
}

fn seal(path: &str, body: &[u8], passthrough: bool, query: &[(&str, &str)]) -> SealedRequest {
    let query: Vec<_> = query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let call = sdk03::Call { path, body, passthrough, query: &query };
    sdk03::seal(&key(), &call, [BODY_IV, PATH_IV]).ok().unwrap()
}

fn open(request: &SealedRequest) -> OpenedRequest {
    open_request(&key(), &request.path, &request.body).unwrap()
}

fn opener() -> Opener {
    seal("/chat_stream", BODY, true, &[]).opener
}

/// The pickles of args and kwargs in hex.
fn pickles(request: &SealedRequest) -> [String; 2] {
    let inner: Value = serde_json::from_slice(&open(request).body).unwrap();
    ["args", "kwargs"].map(|name| {
        let packed = STANDARD.decode(inner[name].as_str().unwrap()).unwrap();
        let mut bytes = Vec::new();
        GzDecoder::new(packed.as_slice()).read_to_end(&mut bytes).unwrap();
        hex::encode(bytes)
    })
}

#[test]
fn a_generation_has_its_name_in_the_directory() {
    assert_eq!(serde_json::to_string(&Generation::Sdk03).unwrap(), "\"sdk-0.3\"");
    assert_eq!(serde_json::from_str::<Generation>("\"sdk-0.3\"").unwrap(), Generation::Sdk03);
    assert_eq!("sdk-0.3".parse(), Ok(Generation::Sdk03));
    assert_eq!("sdk-0.6".parse::<Generation>(), Err(UnknownGeneration));
    assert_eq!(Generation::Sdk03.as_str(), "sdk-0.3");
}

#[test]
fn a_plain_request_is_golden() {
    let request = seal("/chat_stream", BODY, true, &[]);
    assert_eq!(request.body, SEALED_BODY);
    assert_eq!(request.path, SEALED_PATH);
    assert!(!request.serialized);
}

#[test]
fn a_request_has_new_ivs_each_time() {
    let once = seal_request(Generation::Sdk03, &key(), "/a", BODY, false, &[]).ok().unwrap();
    let again = seal_request(Generation::Sdk03, &key(), "/a", BODY, false, &[]).ok().unwrap();
    assert_ne!(once.path[1..33], again.path[1..33]);
    assert_ne!(once.body[..32], again.body[..32]);
    assert_ne!(once.path.as_bytes()[1..33], once.body[..32]);
    assert_eq!(open(&once).body, BODY);
}

#[test]
fn a_short_path_is_filled_up_and_a_long_one_kept() {
    let short = seal("/a", BODY, false, &[]);
    let exact = seal("/aaaaaaaaaaaaaaaaaaaaaaa", BODY, false, &[]);
    let long = seal("/v1/chat/completions/and/more/of/it", BODY, false, &[]);
    assert_eq!((short.path.len(), open(&short).path.as_str()), (97, "/a"));
    assert_eq!((exact.path.len(), open(&exact).path.as_str()), (97, "/aaaaaaaaaaaaaaaaaaaaaaa"));
    assert_eq!((long.path.len(), open(&long).path.as_str()), (129, "/v1/chat/completions/and/more/of/it"));
}

#[test]
fn the_body_goes_plain_unless_python_holds_it_for_false() {
    let plain = ["{\"a\":0}", " [0] ", "[[]]", "1", "-1", "0.1", "1e-9", "\" \"", "\"0\"", "true", "{ \"}\": 0}"];
    let pickled = ["", " ", "{}", " { } ", "[]", "[\n]", "0", "-0", "0.0", "-0.0", "0e9", "\"\"", "null", "false"];
    for body in plain {
        let request = seal("/a", body.as_bytes(), false, &[]);
        assert!(!request.serialized, "{body}");
        assert_eq!(open(&request).body, body);
    }
    for body in pickled {
        assert!(seal("/a", body.as_bytes(), false, &[]).serialized, "{body}");
        assert!(seal("/a", body.as_bytes(), true, &[]).serialized, "{body}");
    }
}

#[test]
fn only_a_passthrough_cord_gets_the_query() {
    assert!(seal("/a", BODY, true, &[("a", "1")]).serialized);
    assert!(!seal("/a", BODY, false, &[("a", "1")]).serialized);
}

#[test]
fn a_function_gets_its_body_as_the_one_argument() {
    assert_eq!(pickles(&seal("/a", b"{}", false, &[])), ["80047d9485942e", "80047d942e"]);
    assert_eq!(pickles(&seal("/a", b"0", false, &[])), ["80044b0085942e", "80047d942e"]);
}

#[test]
fn a_function_called_without_a_body_gets_no_argument() {
    assert_eq!(pickles(&seal("/a", b"", false, &[("a", "1")])), ["8004292e", "80047d942e"]);
}

#[test]
fn an_engine_gets_body_and_query_by_name() {
    let name = |text: &str| format!("8c{:02x}{}94", text.len(), hex::encode(text));
    let head = format!("80047d9428{}", name("json"));
    let params = name("params");
    let empty = format!("{head}7d94{params}7d94752e");
    let full = format!(
        "{head}7d9428{}4b0175{params}7d9428{}{}{}{}75752e",
        name("x"),
        name("b"),
        name("3"),
        name("a"),
        name("2")
    );
    let repeated = [("b", "1"), ("a", "2"), ("b", "3")];
    assert_eq!(pickles(&seal("/get_models", b"", true, &[])), ["8004292e".to_owned(), empty.clone()]);
    assert_eq!(pickles(&seal("/get_models", b"{}", true, &[])), ["8004292e".to_owned(), empty]);
    assert_eq!(pickles(&seal("/a", b"{\"x\":1}", true, &repeated)), ["8004292e".to_owned(), full]);
}

#[test]
fn a_body_that_is_not_json_is_refused_where_it_is_read() {
    let query = [("a".to_owned(), "1".to_owned())];
    for body in [b"{\"a\":".as_slice(), b"no", b"\"\\ud800\"", b"\xff", &[b'['; 1_000_000]] {
        let sealed = seal_request(Generation::Sdk03, &key(), "/a", body, true, &query);
        assert!(matches!(sealed, Err(EnvelopeError::Request(_))));
    }
}

#[test]
fn the_lines_of_a_stream_share_the_iv_of_the_request() {
    let pieces = [b"data: {\"x\":1}".as_slice(), b"", b"data: [DONE]"];
    for (line, piece) in SEALED_LINES.iter().zip(pieces) {
        assert_eq!(seal_line(&key(), &BODY_IV, piece), format!("{line}\n"));
        assert_eq!(opener().open_line(line.as_bytes()).unwrap(), piece);
        assert_eq!(opener().open_line(format!("{line}\r\n").as_bytes()).unwrap(), piece);
    }
}

#[test]
fn a_json_reply_is_golden() {
    let text = r#"{"json":"5qwiig2JsPsr050re7hAlw=="}"#;
    let reply = opener().open_reply(text.as_bytes()).unwrap();
    assert_eq!(seal_json_reply(&key(), &BODY_IV, b"{\"ok\":true}"), text);
    assert_eq!((reply.status, reply.content_type.as_str()), (200, "application/json"));
    assert_eq!((reply.body, reply.headers), (Bytes::from("{\"ok\":true}"), Vec::new()));
}

#[test]
fn a_typed_reply_keeps_status_type_headers_and_bytes() {
    let text = seal_typed_reply(&key(), &BODY_IV, 201, "image/jpeg", b"\xff\xd8\x00");
    let reply = opener().open_reply(text.as_bytes()).unwrap();
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!((reply.status, reply.content_type.as_str()), (201, "image/jpeg"));
    assert_eq!(reply.headers, [header("content-length", "3"), header("content-type", "image/jpeg")]);
    assert_eq!(reply.body, b"\xff\xd8\x00".as_slice());
}

#[test]
fn the_content_type_is_the_headers_then_the_media_types() {
    let body = seal_line(&key(), &BODY_IV, b"x").trim_end().to_owned();
    let table = [
        (json!({ "Content-Type": "text/plain; charset=utf-8" }), json!("text/plain"), "text/plain; charset=utf-8"),
        (json!({}), json!("text/plain"), "text/plain"),
        (json!({}), json!(null), "application/octet-stream"),
    ];
    for (headers, media_type, expected) in table {
        let reply = json!({ "status_code": 200, "headers": headers, "media_type": media_type, "body": body });
        assert_eq!(opener().open_reply(reply.to_string().as_bytes()).unwrap().content_type, expected);
    }
}

#[test]
fn a_hostile_status_is_refused() {
    let body = seal_line(&key(), &BODY_IV, b"x").trim_end().to_owned();
    for status in [0, 101, 199, 600, 65_736, u64::MAX] {
        let reply = json!({ "status_code": status, "body": body }).to_string();
        assert!(matches!(opener().open_reply(reply.as_bytes()), Err(EnvelopeError::Status(found)) if found == status));
    }
}

#[test]
fn an_answer_that_is_no_envelope_is_refused() {
    let nested = "[".repeat(1_000_000);
    let texts = ["", "{}", "null", "[]", r#"{"detail":"x"}"#, r#"{"json":1}"#, r#"{"body":""}"#, &nested];
    for text in texts {
        assert!(matches!(opener().open_reply(text.as_bytes()), Err(EnvelopeError::Reply(_))));
    }
}

#[test]
fn damaged_ciphertext_is_refused() {
    for text in ["", "A", "====", "é", "OhmetaX7ptxf40RrXUI7rg", "OhmetaX7 ptxf40RrXUI7rg=="] {
        assert!(opener().open_line(text.as_bytes()).is_err(), "{text}");
    }
    let bad_padding = STANDARD.encode([0; 16]);
    let half_block = STANDARD.encode([0; 17]);
    for text in [bad_padding, half_block] {
        assert!(matches!(opener().open_line(text.as_bytes()), Err(EnvelopeError::Cipher)));
        assert!(opener().open_reply(json!({ "json": text }).to_string().as_bytes()).is_err());
    }
}

#[test]
fn another_instances_line_is_refused() {
    let other = InstanceKey::from([9; 16]);
    let line = seal_line(&other, &BODY_IV, b"data: {\"x\":1}");
    assert!(opener().open_line(line.as_bytes()).is_err());
}

proptest! {
    #[test]
    fn both_sides_agree(body: Vec<u8>, cord in "/[a-z]([a-z0-9_/]{0,40}[a-z])?", key: [u8; 16]) {
        let key = InstanceKey::from(key);
        let body = [b"1".as_slice(), &body].concat();
        let request = seal_request(Generation::Sdk03, &key, &cord, &body, false, &[]).ok().unwrap();
        let opened = open_request(&key, &request.path, &request.body).unwrap();
        prop_assert_eq!(&opened.path, &cord);
        prop_assert_eq!(&opened.body, &body);
        let line = seal_line(&key, &opened.iv, &body);
        prop_assert_eq!(request.opener.open_line(line.as_bytes()).unwrap(), &body);
        let reply = request.opener.open_reply(seal_json_reply(&key, &opened.iv, &body).as_bytes()).unwrap();
        prop_assert_eq!(&reply.body, &body);
        let typed = request.opener.open_reply(seal_typed_reply(&key, &opened.iv, 200, "a/b", &body).as_bytes()).unwrap();
        prop_assert_eq!(&typed.body, &body);
    }

    #[test]
    fn nothing_hostile_panics(bytes: Vec<u8>, path: String, blocks: Vec<[u8; 16]>) {
        let line = STANDARD.encode(blocks.concat());
        let _ = opener().open_line(&bytes);
        let _ = opener().open_reply(&bytes);
        let _ = opener().open_line(line.as_bytes());
        let _ = opener().open_reply(json!({ "status_code": 200, "body": line }).to_string().as_bytes());
        let _ = open_request(&key(), &path, &bytes);
    }
}
