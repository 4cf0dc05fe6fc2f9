//! Tests of `chute`: what a description of a chute may say.

use serde_json::{Value, json};

use super::*;

fn description(change: impl FnOnce(&mut Value)) -> Result<Vec<Cord>, InvalidChute> {
    let mut text = json!({
        "user": "chutes", "name": "unsloth/Llama-3.2-1B", "image": "vllm:1.0", "template": "vllm", "public": true,
        "concurrency": 8, "cords": [
            {"function": "chat_stream", "path": "/chat_stream", "public_path": "/v1/chat/completions", "stream": true},
            {"function": "chat", "path": "/chat", "public_path": "/v1/chat/completions"},
        ],
    });
    change(&mut text);
    serde_json::from_value::<Description>(text).unwrap().check()
}

#[test]
fn a_whole_description_gives_its_cords_with_defaults() {
    let cords = description(|_| ()).unwrap();
    assert_eq!(cords.len(), 2);
    assert_eq!((cords[1].public_method.as_str(), cords[1].stream, cords[1].passthrough), ("POST", false, false));
}

#[test]
fn names_follow_the_rule_of_names() {
    for name in ["abc", "a/b", "_x/abc", "Qwen/Qwen3-0.6B", "a//b"] {
        assert!(description(|text| text["name"] = json!(name)).is_ok(), "{name}");
    }
    for name in ["ab", "/abc", "_abc", "_//abc", "a b c", "täg", "...", &"x".repeat(128)] {
        assert_eq!(description(|text| text["name"] = json!(name)), Err(InvalidChute::Name), "{name}");
    }
}

#[test]
fn cords_follow_the_rules_of_paths_and_methods() {
    let broken = [
        ("function", json!("9lives")),
        ("path", json!("no_slash")),
        ("path", json!("/9")),
        ("path", json!("/")),
        ("path", json!("/with-dash")),
        ("public_path", json!("/a/../b")),
        ("public_path", json!("/a?b")),
        ("public_method", json!("DELETE")),
        ("content_type", json!("a\r\nb")),
    ];
    for (field, value) in broken {
        let outcome = description(|text| text["cords"][0][field] = value.clone());
        assert!(matches!(outcome, Err(InvalidChute::Cord { .. })), "{field} {value}");
    }
}

#[test]
fn numbers_out_of_range_and_ambiguous_or_missing_cords_are_refused() {
    assert_eq!(description(|text| text["concurrency"] = json!(0)), Err(InvalidChute::Concurrency));
    assert_eq!(description(|text| text["concurrency"] = json!(257)), Err(InvalidChute::Concurrency));
    assert_eq!(description(|text| text["multiplier"] = json!(0.0)), Err(InvalidChute::Multiplier));
    assert_eq!(description(|text| text["price"] = json!({"input": u64::MAX, "output": 1})), Err(InvalidChute::Price));
    assert_eq!(description(|text| text["cords"] = json!([])), Err(InvalidChute::Cords));
    let twice = description(|text| text["cords"][1]["stream"] = json!(true));
    assert!(matches!(twice, Err(InvalidChute::Ambiguous { .. })));
}
