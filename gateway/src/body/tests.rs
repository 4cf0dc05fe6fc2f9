//! What instances are sent for what clients send.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::fixture;

const CHAT: &str = "/v1/chat/completions";

fn prepared(template: Option<Template>, path: &str, stream: bool, raw: &str) -> Result<Prepared, Refusal> {
    Body::read(template, raw.as_bytes(), false)?
        .prepare(&fixture::chute("org/model", template), &fixture::cord("function", path, stream))
}

fn chat(raw: &str) -> Result<Prepared, Refusal> {
    let stream = Body::read(Some(Template::Vllm), raw.as_bytes(), false)?.stream();
    prepared(Some(Template::Vllm), CHAT, stream, raw)
}

fn image(raw: &Value) -> Result<Prepared, Refusal> {
    prepared(Some(Template::Diffusion), "/generate", false, &raw.to_string())
}

fn embed(raw: &str) -> Result<Prepared, Refusal> {
    prepared(Some(Template::Embedding), "/v1/embeddings", false, raw)
}

fn text(prepared: &Prepared) -> &str {
    std::str::from_utf8(&prepared.body).unwrap()
}

fn refused(result: Result<Prepared, Refusal>) -> String {
    match result {
        Err(Refusal::BadRequest(message)) => message,
        other => panic!("not refused as a bad request: {other:?}"),
    }
}

#[test]
fn a_chat_keeps_its_bytes_and_order_and_gets_the_chutes_name() {
    let body =
        chat(r#"{ "temperature": 0.70,"model":"x", "messages" :[ {"role":"user","content":"hello"} ],"é":[1, 2]}"#)
            .unwrap();
    let expected =
        r#"{"temperature":0.70,"model":"org/model","messages":[ {"role":"user","content":"hello"} ],"é":[1, 2]}"#;
    assert_eq!(text(&body), expected);
    assert_eq!((body.stream, body.hide_usage, body.prompt_estimate, body.kind), (false, false, 2, Kind::Complete));
    assert_eq!(text(&chat("{}").unwrap()), r#"{"model":"org/model"}"#);
}

#[test]
fn a_stream_is_made_to_end_with_usage_that_is_hidden_unless_asked_for() {
    let table = [
        (r#"{"stream":true}"#, r#"{"include_usage":true}"#, true),
        (r#"{"stream":true,"stream_options":null}"#, r#"{"include_usage":true}"#, true),
        (r#"{"stream":true,"stream_options":{"include_usage":false,"x": 1}}"#, r#"{"include_usage":true,"x":1}"#, true),
        (r#"{"stream":true,"stream_options":{"include_usage":true}}"#, r#"{"include_usage":true}"#, false),
    ];
    for (raw, options, hidden) in table {
        let body = chat(raw).unwrap();
        let sent: Value = serde_json::from_slice(&body.body).unwrap();
        assert_eq!(sent["stream_options"], serde_json::from_str::<Value>(options).unwrap(), "{raw}");
        assert_eq!((body.stream, body.hide_usage, body.kind), (true, hidden, Kind::Stream), "{raw}");
    }
    assert!(!text(&chat(r#"{"stream":false}"#).unwrap()).contains("stream_options"));
}

#[test]
fn thinking_is_asked_for_by_suffix_or_header() {
    let chute = fixture::chute("org/model", Some(Template::Vllm));
    let cord = fixture::cord("chat", CHAT, false);
    for (raw, header, model, thinks) in [
        (r#"{"model":"org/model:THINKING"}"#, false, "org/model", true),
        (r#"{"model":"org/model","chat_template_kwargs":{"x":1,"thinking":false}}"#, true, "org/model", true),
        (r#"{"model":"org/model:thinking"}"#, false, "org/model:thinking", false),
    ] {
        let body = Body::read(Some(Template::Vllm), raw.as_bytes(), header).unwrap();
        assert_eq!(body.model(), Some(model));
        let sent: Value = serde_json::from_slice(&body.prepare(&chute, &cord).unwrap().body).unwrap();
        assert_eq!(sent["model"], "org/model");
        let flags = (&sent["chat_template_kwargs"]["thinking"], &sent["chat_template_kwargs"]["enable_thinking"]);
        assert_eq!(flags == (&json!(true), &json!(true)), thinks, "{raw}");
    }
}

#[test]
fn tools_without_a_choice_are_used_automatically() {
    let choice = |raw: &str| -> Value {
        let sent: Value = serde_json::from_slice(&chat(raw).unwrap().body).unwrap();
        sent["tool_choice"].clone()
    };
    assert_eq!(choice(r#"{"tools":[{"type":"function"}]}"#), "auto");
    assert_eq!(choice(r#"{"tools":[{}],"tool_choice":null}"#), "auto");
    assert_eq!(choice(r#"{"tools":[{}],"tool_choice":"none"}"#), "none");
    assert_eq!(choice(r#"{"tools":[]}"#), Value::Null);
}

#[test]
fn logprobs_bring_at_least_one_top_logprob() {
    let top = |raw: &str| -> Value {
        let sent: Value = serde_json::from_slice(&chat(raw).unwrap().body).unwrap();
        sent["top_logprobs"].clone()
    };
    assert_eq!(top(r#"{"logprobs":true}"#), 1);
    assert_eq!(top(r#"{"logprobs":true,"top_logprobs":0}"#), 1);
    assert_eq!(top(r#"{"logprobs":true,"top_logprobs":5}"#), 5);
    assert_eq!(top(r#"{"logprobs":false}"#), Value::Null);
}

#[test]
fn arguments_of_tool_calls_must_be_json_and_an_empty_text_becomes_null() {
    let with = |arguments: &str| {
        let call = format!(r#"{{"id":"1", "function":{{"name":"f","arguments":{arguments}}}}}"#);
        chat(&format!(
            r#"{{"messages":[{{"role":"user","content":"a"}},{{"role":"assistant","tool_calls":[{call}]}}]}}"#
        ))
    };
    let expected = concat!(
        r#"{"messages":[{"role":"user","content":"a"},"#,
        r#"{"role":"assistant","tool_calls":[{"id":"1","function":{"name":"f","arguments":"null"}}]}],"model":"org/model"}"#,
    );
    assert_eq!(text(&with(r#""""#).unwrap()), expected);
    for good in [r#""{\"a\":1}""#, r#""null""#, r#"{"a":1}"#, "null", r#""[\"\\u00e4\"]""#] {
        assert!(text(&with(good).unwrap()).contains(good), "{good}");
    }
    for bad in [r#""{""#, r#""nil""#, r#"" ""#, r#""{} x""#] {
        assert_eq!(refused(with(bad)), "Invalid tool_calls.function.arguments value, expected JSON");
    }
}

#[test]
fn the_prompt_is_estimated_by_the_bytes_of_its_text() {
    for (raw, tokens) in [
        (r#"{"prompt":"abcd"}"#, 1),
        (r#"{"prompt":"abcde"}"#, 2),
        (r#"{"prompt":"\u00e4\u00e4\u00e4"}"#, 2),
        (r#"{"prompt":["abcd","ef"]}"#, 2),
        (r#"{"prompt":[1,2,3]}"#, 3),
        (r#"{"prompt":[[1,2],[3]]}"#, 3),
        (r#"{"messages":[{"role":"system","content":"abcd"},{"role":"user","content":"efgh"}]}"#, 2),
        (
            r#"{"messages":[{"content":[{"type":"text","text":"abcd"},{"type":"image_url","image_url":{"url":"https://x/y"}}]}]}"#,
            1,
        ),
        (r#"{"messages":[{"content":null},{"role":"user"}]}"#, 0),
        (r#"{}"#, 0),
    ] {
        assert_eq!(chat(raw).unwrap().prompt_estimate, tokens, "{raw}");
    }
}

#[test]
fn addresses_in_messages_go_on_as_they_are() {
    let message =
        r#"{"role":"user","content":[{"type":"image_url","image_url":{"url":"http://169.254.169.254/\u0061"}}]}"#;
    assert!(text(&chat(&format!(r#"{{"messages":[{message}]}}"#)).unwrap()).contains(message));
}

#[test]
fn of_a_field_given_twice_the_last_counts_where_the_first_stood() {
    let body = chat(r#"{"model":"a","n":1,"model":"b","n":2}"#).unwrap();
    assert_eq!(text(&body), r#"{"model":"org/model","n":2}"#);
    let read = Body::read(Some(Template::Vllm), br#"{"model":"a","model":"b"}"#, false).unwrap();
    assert_eq!(read.model(), Some("b"));
}

#[test]
fn what_is_no_json_is_refused_with_its_position() {
    for (template, raw) in [
        (Some(Template::Vllm), "{"),
        (Some(Template::Vllm), "[]"),
        (Some(Template::Vllm), "{} x"),
        (Some(Template::Vllm), "{\"a\":NaN}"),
        (Some(Template::Embedding), "null"),
        (Some(Template::Diffusion), "\"x\""),
        (None, "{'a': 1}"),
        (None, " "),
    ] {
        let message = refused(prepared(template, CHAT, false, raw));
        assert!(message.starts_with("invalid request JSON payload: "), "{raw}: {message}");
    }
    assert!(matches!(Body::read(None, b"\"\xff\"", false), Err(Refusal::BadRequest(_))));
    assert!(matches!(Body::read(Some(Template::Vllm), b"{\"a\":\"\xff\"}", false), Err(Refusal::BadRequest(_))));
}

#[test]
fn fields_of_the_wrong_type_are_named() {
    for (raw, message) in [
        (r#"{"stream":"yes"}"#, "stream must be a boolean"),
        (r#"{"model":7}"#, "model must be a string"),
        (r#"{"messages":"hi"}"#, "messages must be a list of messages"),
        (r#"{"messages":[7]}"#, "messages must be a list of messages"),
        (r#"{"stream":true,"stream_options":[]}"#, "stream_options must be an object"),
        (r#"{"tools":{}}"#, "tools must be a list"),
        (r#"{"prompt":"\ud800"}"#, "prompt must be a string or a list"),
    ] {
        assert_eq!(refused(chat(raw)), message);
    }
}

#[test]
fn an_object_with_countless_fields_is_refused() {
    let many: Vec<String> = (0..257).map(|number| format!(r#""f{number}":0"#)).collect();
    assert!(refused(chat(&format!("{{{}}}", many.join(",")))).contains("more than 256 fields"));
}

#[test]
fn an_empty_body_is_an_empty_object_where_none_is_expected() {
    let mut cord = fixture::cord("get_models", "/v1/models", false);
    cord.public_method = "GET".into();
    let chute = fixture::chute("org/model", Some(Template::Vllm));
    let body = Body::read(Some(Template::Vllm), b"", false).unwrap().prepare(&chute, &cord).unwrap();
    assert_eq!((text(&body), body.kind), ("{}", Kind::Time));
    assert!(refused(prepared(Some(Template::Vllm), CHAT, false, "")).contains("it is empty"));
    assert_eq!(text(&prepared(None, "/own", false, "").unwrap()), "{}");
}

#[test]
fn a_chute_of_its_own_kind_gets_any_json_byte_for_byte() {
    for raw in ["0", "[]", " {\"a\" : 1,\"a\":2} ", "\"\\ud800\"", "null"] {
        let body = prepared(None, "/own", true, raw).unwrap();
        assert_eq!((text(&body), body.stream, body.kind), (raw, true, Kind::Time));
    }
}

#[test]
fn only_chat_and_completions_are_measured_in_tokens() {
    let kind = |path: &str, stream: bool, raw: &str| prepared(Some(Template::Vllm), path, stream, raw).unwrap().kind;
    assert_eq!(kind("/v1/completions", true, r#"{"stream":true}"#), Kind::Stream);
    assert_eq!(kind("/v1/completions", false, "{}"), Kind::Complete);
    assert_eq!(kind("/tokenize", false, "{}"), Kind::Time);
}

#[test]
fn an_embedding_needs_a_model_and_an_input() {
    let body = embed(r#"{"input":["abcd","e"],"model":"alias","encoding_format":"base64"}"#).unwrap();
    assert_eq!(text(&body), r#"{"input":["abcd","e"],"model":"org/model","encoding_format":"base64"}"#);
    assert_eq!((body.prompt_estimate, body.kind), (2, Kind::Time));
    assert_eq!(refused(embed(r#"{"input":"a"}"#)), "model is required");
    assert_eq!(refused(embed(r#"{"model":"a"}"#)), "input is required");
    assert_eq!(refused(embed(r#"{"model":"a","input":null}"#)), "input is required");
    for input in ["7", "{}", "true"] {
        let message = refused(embed(&format!(r#"{{"model":"a","input":{input}}}"#)));
        assert!(message.starts_with("input must be"), "{message}");
    }
}

#[test]
fn an_image_goes_on_without_what_chose_the_chute() {
    let body =
        image(&json!({ "model": "m", "prompt": "a cat", "cord": 1, "method": 2, "seed": 4_294_967_295_u32 })).unwrap();
    assert_eq!(text(&body), r#"{"prompt":"a cat","seed":4294967295,"num_inference_steps":25}"#);
    assert_eq!((body.steps, body.kind, body.prompt_estimate), (25, Kind::Steps, 0));
}

#[test]
fn steps_are_bounded_and_slow_models_get_fewer() {
    let steps = |asked: u64| image(&json!({ "prompt": "p", "num_inference_steps": asked })).unwrap().steps;
    assert_eq!((steps(1), steps(50), steps(51), steps(u64::MAX)), (1, 50, 50, 50));
    assert!(refused(image(&json!({ "prompt": "p", "num_inference_steps": 0 }))).contains("at least 1"));
    let raw = json!({ "prompt": "p", "num_inference_steps": 40 }).to_string();
    let slow = fixture::chute("black-forest-labs/FLUX.1-dev", Some(Template::Diffusion));
    let body = Body::read(Some(Template::Diffusion), raw.as_bytes(), false).unwrap();
    let body = body.prepare(&slow, &fixture::cord("generate", "/generate", false)).unwrap();
    assert_eq!((body.steps, text(&body)), (30, r#"{"prompt":"p","num_inference_steps":30}"#));
}

#[test]
fn the_schema_of_images_is_strict() {
    for extra in ["strength", "Prompt", "n", "stream"] {
        assert_eq!(refused(image(&json!({ "prompt": "p", extra: 1 }))), format!("{extra} must be left out"));
    }
    let long = "x".repeat(1000);
    assert_eq!(refused(image(&json!({ "prompt": "p", &*long: 1 }))), format!("{} must be left out", &long[..64]));
    assert_eq!(refused(image(&json!({}))), "prompt is required");
    for (name, value) in [
        ("prompt", json!(["p"])),
        ("negative_prompt", json!(1)),
        ("height", json!(127)),
        ("height", json!(2049)),
        ("width", json!(512.5)),
        ("width", json!("512")),
        ("guidance_scale", json!(0.5)),
        ("guidance_scale", json!(20.1)),
        ("img_guidance_scale", json!(21)),
        ("seed", json!(-1)),
        ("seed", json!(4_294_967_296_u64)),
        ("image_b64", json!("x")),
        ("image_b64", json!([1])),
        ("num_inference_steps", json!("9")),
        ("num_inference_steps", json!(-9)),
    ] {
        let mut raw = json!({ "prompt": "p" });
        raw[name] = value;
        assert!(refused(image(&raw)).starts_with(name), "{raw}");
    }
    let whole = json!({
        "prompt": "p", "negative_prompt": "n", "height": 128, "width": 2048, "num_inference_steps": 4,
        "guidance_scale": 7.5, "seed": null, "img_guidance_scale": 1, "image_b64": ["aGk="],
    });
    assert_eq!(serde_json::from_slice::<Value>(&image(&whole).unwrap().body).unwrap(), whole);
}

proptest! {
    #[test]
    fn no_bytes_make_a_body_panic(raw in prop::collection::vec(any::<u8>(), 0..96), thinking in any::<bool>()) {
        for template in [None, Some(Template::Vllm), Some(Template::Embedding), Some(Template::Diffusion)] {
            if let Ok(body) = Body::read(template, &raw, thinking) {
                let _ = body.prepare(&fixture::chute("m", template), &fixture::cord("f", CHAT, true));
            }
        }
    }

    #[test]
    fn no_json_makes_a_body_panic_and_what_is_sent_is_json(
        raw in r#"\{("(model|stream|messages|prompt|tools|input|logprobs)":(true|"x"|\[\{"content":"(a|\\u00e4)?","tool_calls":\[\{"function":\{"arguments":"(1)?"\}\}\]\}\]|null|7),){0,4}"z":[0-9]\}"#,
    ) {
        for template in [None, Some(Template::Vllm), Some(Template::Embedding), Some(Template::Diffusion)] {
            let prepared = Body::read(template, raw.as_bytes(), true)
                .and_then(|body| body.prepare(&fixture::chute("m", template), &fixture::cord("f", CHAT, true)));
            if let Ok(prepared) = prepared {
                prop_assert!(serde_json::from_slice::<Value>(&prepared.body).is_ok());
            }
        }
    }
}
