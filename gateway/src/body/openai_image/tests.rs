//! What OpenAI's clients may ask for, and what a chute is then asked.

use proptest::prelude::*;
use protocol::directory::Template;
use protocol::usage::Kind;
use serde_json::{Value, json};

use super::super::{Body, Form, Prepared};
use super::*;
use crate::fixture;

/// What an instance of a diffusion chute is sent.
fn prepared(raw: &str) -> Result<Prepared, Refusal> {
    let chute = fixture::chute("org/painter", Some(Template::Diffusion));
    let body = Body::read(Some(Template::Diffusion), raw.as_bytes(), false)?.translated(Form::OpenAiImage)?;
    body.prepare(&chute, &fixture::cord("generate", GENERATE, false))
}

fn sent(raw: &Value) -> Value {
    serde_json::from_slice(&prepared(&raw.to_string()).unwrap().body).unwrap()
}

fn refused(raw: &Value) -> String {
    match prepared(&raw.to_string()) {
        Err(Refusal::BadRequest(words)) => words,
        other => panic!("not refused as a bad request: {other:?}"),
    }
}

#[test]
fn a_request_becomes_that_of_a_diffusion_chute() {
    let raw = json!({
        "model": "org/painter", "prompt": "a cat", "n": 1, "size": "1024x768", "response_format": "b64_json",
        "user": "u-1", "quality": "standard", "background": "auto", "moderation": "low", "stream": false, "seed": 7,
    });
    let expected = json!({ "prompt": "a cat", "seed": 7, "width": 1024, "height": 768, "num_inference_steps": 25 });
    assert_eq!(sent(&raw), expected);
    let call = prepared(&raw.to_string()).unwrap();
    assert_eq!((call.steps, call.kind, call.stream), (25, Kind::Steps, false));
}

#[test]
fn what_is_left_out_or_null_is_left_to_the_chute() {
    for size in [json!("auto"), Value::Null] {
        let raw = json!({ "model": "m", "prompt": "a cat", "size": size, "n": null, "response_format": null });
        assert_eq!(sent(&raw), json!({ "prompt": "a cat", "num_inference_steps": 25 }));
    }
    let own = json!({ "model": "m", "prompt": "p", "width": 512, "height": 256, "num_inference_steps": 3 });
    assert_eq!(sent(&own), json!({ "prompt": "p", "width": 512, "height": 256, "num_inference_steps": 3 }));
}

#[test]
fn what_no_chute_gives_is_refused_with_what_is_allowed() {
    for (name, value, words) in [
        ("n", json!(2), "n must be 1 or left out"),
        ("n", json!("1"), "n must be 1 or left out"),
        ("response_format", json!("url"), "response_format must be \"b64_json\" or left out"),
        ("stream", json!(true), "stream must be false or left out"),
        ("quality", json!("hd"), "quality must be \"auto\" or \"standard\" or left out"),
        ("background", json!("transparent"), "background must be \"auto\" or \"opaque\" or left out"),
        ("style", json!("vivid"), "style must be left out"),
        ("output_format", json!("png"), "output_format must be left out"),
    ] {
        assert_eq!(refused(&json!({ "model": "m", "prompt": "p", name: value })), words);
    }
    assert_eq!(refused(&json!({ "model": "m" })), "prompt is required");
}

#[test]
fn the_size_is_bounded_and_stands_alone() {
    for size in
        ["", "x", "1024", "1024x", "127x512", "512x2049", "+512x512", "512x512x512", "512X512", "00512x512", "9x9"]
    {
        let words = refused(&json!({ "model": "m", "prompt": "p", "size": size }));
        assert!(words.starts_with("size must be \"auto\" or \"WIDTHxHEIGHT\" with sides from 128 to 2048"), "{size}");
    }
    assert_eq!(refused(&json!({ "prompt": "p", "size": 512 })), "size must be a string");
    let both = json!({ "prompt": "p", "size": "512x512", "width": 512 });
    assert_eq!(refused(&both), "size stands for width and height: give one or the other");
}

#[test]
fn only_the_facade_of_images_speaks_openais_form() {
    assert_eq!(Form::of(Template::Diffusion, PATH), Form::OpenAiImage);
    assert_eq!(Form::of(Template::Diffusion, GENERATE), Form::Own);
    assert_eq!(Form::of(Template::Vllm, PATH), Form::Own);
}

#[test]
fn an_image_is_answered_in_base64() {
    assert_eq!(answer(&[0xff, 0xd8, 0], 1_700_000_000), r#"{"created":1700000000,"data":[{"b64_json":"/9gA"}]}"#);
}

proptest! {
    #[test]
    fn a_size_that_passes_is_the_one_that_was_asked_for(width in 0..3000_u32, height in 0..3000_u32) {
        let inside = SIDE.contains(&width) && SIDE.contains(&height);
        prop_assert_eq!(sides(&format!("{width}x{height}")), inside.then_some((width, height)));
    }

    #[test]
    fn no_size_makes_it_panic(size in "[0-9x+\u{e4} ]{0,12}") {
        let _ = sides(&size);
    }
}
