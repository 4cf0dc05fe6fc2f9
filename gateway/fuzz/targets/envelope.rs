//! The envelope: what an instance sends opens or is refused, and what is sealed opens as it was, in both forms.

use std::io::Read;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::read::GzDecoder;
use gateway::host::query::parameters;
use protocol::envelope::instance::{open_request, seal_json_reply, seal_typed_reply};
use protocol::envelope::{Generation, seal_request};
use protocol::sealing::InstanceKey;
use serde_json::{Map, Value, json};

use super::pickle;

const KEY: [u8; 16] = [7; 16];

/// `data` is a path with a query, and a body; and, as it is, an answer, a line and a request of somebody hostile.
pub(crate) fn run(data: &[u8]) {
    let (target, body) = super::line(data);
    if let Ok(target) = std::str::from_utf8(target) {
        let _ = open_request(&KEY.into(), target, body);
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        if let Ok(query) = parameters(query) {
            request(&format!("/{path}"), body, false, &query);
            request(&format!("/{path}"), body, true, &query);
        }
    }
    answers(data);
}

/// What is sealed is opened by an instance, and says the same to its cord.
fn request(path: &str, body: &[u8], passthrough: bool, query: &[(String, String)]) {
    let key = InstanceKey::from(KEY);
    let absent = body.trim_ascii().is_empty();
    let value = serde_json::from_slice::<Value>(body).ok();
    let Ok(sealed) = seal_request(Generation::Sdk03, &key, path, body, passthrough, query) else {
        assert!(value.is_none() && !absent, "JSON is refused");
        return;
    };
    let opened = open_request(&key, &sealed.path, &sealed.body).expect("what was sealed opens");
    assert_eq!(opened.path, path);
    if let Some(value) = &value {
        let needs_pickle = (passthrough && !query.is_empty()) || is_falsy(value);
        assert_eq!(sealed.serialized, needs_pickle, "a form that loses something");
    }
    if !sealed.serialized {
        assert!(!absent, "plain JSON that is none");
        assert_eq!(opened.body, body, "a body is changed");
        return;
    }
    let [args, kwargs] = pickles(&opened.body);
    let (argument, keywords) = (pickle::argument(&args), pickle::keywords(&kwargs));
    let (expected, named) = if passthrough {
        let params: Map<_, _> = query.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
        (None, json!({ "json": value.unwrap_or_else(|| json!({})), "params": params }))
    } else {
        (value, json!({}))
    };
    // As text: a zero keeps its sign, and names their order.
    assert_eq!(argument.map(|it| it.to_string()), expected.map(|it| it.to_string()), "another argument");
    assert_eq!(keywords.to_string(), named.to_string(), "other keywords");
}

/// Whether an instance would take this JSON for nothing at all.
fn is_falsy(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(entries) => entries.is_empty(),
    }
}

/// The pickles of args and kwargs.
fn pickles(body: &[u8]) -> [Vec<u8>; 2] {
    let body: Value = serde_json::from_slice(body).expect("both parts stand in JSON");
    assert_eq!(body.as_object().map(Map::len), Some(2), "more than two parts");
    ["args", "kwargs"].map(|name| {
        let packed = STANDARD.decode(body[name].as_str().expect("a part is a text")).expect("a part is base64");
        let mut bytes = Vec::new();
        GzDecoder::new(packed.as_slice()).read_to_end(&mut bytes).expect("a part is gzipped");
        bytes
    })
}

fn answers(data: &[u8]) {
    let key = InstanceKey::from(KEY);
    let sealed = seal_request(Generation::Sdk03, &key, "/chat", b"{}", false, &[]).expect("an empty object is JSON");
    let iv = open_request(&key, &sealed.path, &sealed.body).expect("what was sealed opens").iv;
    // Answers and lines out of nothing: refused, or no longer than they came.
    if let Ok(reply) = sealed.opener.open_reply(data) {
        assert!((200..600).contains(&reply.status) && reply.body.len() <= data.len());
    }
    if let Ok(line) = sealed.opener.open_line(data) {
        assert!(line.len() <= data.len());
    }
    let typed = seal_typed_reply(&key, &iv, 200, "image/png", data);
    let reply = sealed.opener.open_reply(typed.as_bytes()).expect("what was sealed opens");
    assert_eq!((reply.status, &reply.body[..]), (200, data));
    let json = seal_json_reply(&key, &iv, data);
    assert_eq!(&sealed.opener.open_reply(json.as_bytes()).expect("what was sealed opens").body[..], data);
}
