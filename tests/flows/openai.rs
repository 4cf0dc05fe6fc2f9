//! What users of OpenAI's Python SDK see, over TLS, on a chute's own host and on the shared ones.

use std::time::Duration;

use serde_json::{Value, json};
use stack::miner::{Behaviour, Engine, Fault};

use crate::records::only_attempt;
use crate::scene::Scene;
use crate::scripts::Sdk;

const PROMPT: &str = "Tell me about the sea.";

fn chat(scene: &Scene, base_url: &str, more: &Value) -> Value {
    scene.task(base_url, &scene.sample_key(), Engine::Vllm, more)
}

/// Both addresses of the text chute.
fn text_hosts(scene: &Scene) -> [String; 2] {
    [scene.url("llm"), scene.url(&scene.sample(Engine::Vllm).slug)]
}

#[tokio::test]
async fn the_sdk_lists_models_and_completes_on_the_shared_host_and_on_the_chutes_own() {
    let (scene, sdk) = (Scene::start().await, Sdk::new().await);
    let chute = scene.sample(Engine::Vllm);
    for host in text_hosts(&scene) {
        let listed = sdk.run("models", &chat(&scene, &host, &json!({}))).await;
        let ids: Vec<&Value> = listed["models"].as_array().unwrap().iter().map(|model| &model["id"]).collect();
        assert_eq!(ids, [&json!(chute.model)], "{host}");

        let seen = sdk.run("chat", &chat(&scene, &host, &json!({"prompt": PROMPT, "max_tokens": 12}))).await;
        assert_eq!(seen["model"], json!(chute.model));
        assert_eq!(seen["content"].as_str().unwrap().split(' ').count(), 12);
        assert_eq!(seen["content_type"], "application/json");
        let attempt = only_attempt(&scene.db, &seen["invocation"]).await;
        assert_eq!((attempt.outcome.as_str(), attempt.delivered, &attempt.error_message), ("finished", true, &None));
        assert_eq!(attempt.function_name, "chat");
        assert_eq!(attempt.chute_id, chute.id.0);
        assert_eq!(attempt.user_id, scene.sample_user().0);
        assert_eq!(json!(attempt.count("it")), seen["prompt_tokens"]);
        assert_eq!(json!(attempt.count("ot")), seen["completion_tokens"]);
        assert_eq!(attempt.count("ot"), 12);
    }
}

#[tokio::test]
async fn the_shared_host_prices_models_and_lists_them_without_a_key() {
    let (scene, sdk) = (Scene::start().await, Sdk::new().await);
    let stranger = scene.task(&scene.url("llm"), "nobody", Engine::Vllm, &json!({}));
    let listed = sdk.run("models", &stranger).await;
    let model = &listed["models"][0];
    assert_eq!(model["price"], json!({"input": {"usd": 0.1, "tao": null}, "output": {"usd": 0.4, "tao": null}}));
    assert_eq!(model["pricing"], json!({"prompt": 0.1, "completion": 0.4}));
    assert_eq!(model["max_model_len"], 32_768);
    assert_eq!(model["object"], "model");
}

#[tokio::test]
async fn a_stream_has_usage_exactly_when_the_client_asked_and_is_metered_either_way() {
    let (scene, sdk) = (Scene::start().await, Sdk::new().await);
    for host in text_hosts(&scene) {
        let asked = json!({"prompt": PROMPT, "max_tokens": 30, "include_usage": true});
        let with = sdk.run("stream", &chat(&scene, &host, &asked)).await;
        let without = sdk.run("stream", &chat(&scene, &host, &json!({"prompt": PROMPT, "max_tokens": 30}))).await;
        for seen in [&with, &without] {
            assert_eq!(seen["error"], Value::Null);
            assert_eq!(seen["pieces"].as_array().unwrap().len(), 30);
            assert!(seen["content_type"].as_str().unwrap().starts_with("text/event-stream"));
        }
        assert_eq!(with["pieces"], without["pieces"]);
        assert_eq!((&without["usages"], &without["without_choices"]), (&json!([]), &json!(0)));
        assert_eq!(with["without_choices"], 1);
        let usage = &with["usages"][0];
        assert_eq!(usage["completion_tokens"], 30);
        for seen in [&with, &without] {
            let attempt = only_attempt(&scene.db, &seen["invocation"]).await;
            assert_eq!((attempt.outcome.as_str(), attempt.delivered), ("finished", true));
            assert_eq!(attempt.function_name, "chat_stream");
            assert_eq!(json!(attempt.count("it")), usage["prompt_tokens"]);
            assert_eq!((attempt.count("ot"), attempt.count("tokens")), (30, 30));
        }
    }
}

#[tokio::test]
async fn embeddings_arrive_as_the_same_numbers_in_base64_and_in_plain() {
    let (scene, sdk) = (Scene::start().await, Sdk::new().await);
    let hosts = [scene.url("embed"), scene.url(&scene.sample(Engine::Embedding).slug)];
    for host in hosts {
        let task = scene.task(&host, &scene.sample_key(), Engine::Embedding, &json!({}));
        let seen = sdk.run("embeddings", &task).await;
        assert_eq!(seen["default"], seen["plain"]);
        let vectors: Vec<Vec<f64>> = serde_json::from_value(seen["default"].clone()).unwrap();
        assert_eq!(vectors.iter().map(Vec::len).collect::<Vec<_>>(), [64, 64]);
        assert_ne!(vectors[0], vectors[1]);
        assert_eq!(seen["prompt_tokens"], 7);
        let attempt = only_attempt(&scene.db, &seen["invocation"]).await;
        assert_eq!((attempt.outcome.as_str(), attempt.metrics), ("finished", None));
    }
}

#[tokio::test]
async fn an_image_arrives_as_base64_and_what_no_chute_gives_is_refused_in_openais_words() {
    let (scene, sdk) = (Scene::start().await, Sdk::new().await);
    let generate = async |options: Value| {
        let task =
            scene.task(&scene.url("image"), &scene.sample_key(), Engine::Diffusion, &json!({"options": options}));
        sdk.run("image", &task).await
    };
    let extra = json!({"num_inference_steps": 12});
    let options = json!({"size": "1024x768", "n": 1, "response_format": "b64_json", "extra_body": extra});
    for (options, steps) in [(options, 12), (json!({}), 25)] {
        let seen = generate(options).await;
        assert_eq!((&seen["error"], &seen["content_type"]), (&Value::Null, &json!("application/json")));
        let images = seen["images"].as_array().unwrap();
        assert!(images.len() == 1 && text(&images[0]).starts_with("ffd8ff") && text(&images[0]).ends_with("ffd9"));
        assert!(seen["created"].as_i64().unwrap() > 1_700_000_000);
        let attempt = only_attempt(&scene.db, &seen["invocation"]).await;
        assert_eq!((attempt.outcome.as_str(), attempt.delivered), ("finished", true));
        assert_eq!((attempt.function_name.as_str(), attempt.count("steps")), ("generate", steps));
    }
    for (options, words) in [
        (json!({"n": 2}), "n must be 1 or left out"),
        (json!({"response_format": "url"}), "response_format must be \"b64_json\" or left out"),
        (
            json!({"size": "4096x4096"}),
            "size must be \"auto\" or \"WIDTHxHEIGHT\" with sides from 128 to 2048, as in \"1024x768\"",
        ),
    ] {
        let error = &generate(options).await["error"];
        assert_error(error, "BadRequestError", 400, "invalid_request_error", "bad_request");
        assert_eq!(error["detail"], words);
    }
}

#[tokio::test]
async fn the_sdk_reads_a_stream_whose_prefill_is_filled_with_comments() {
    let (scene, sdk) = (Scene::with_setting("GATEWAY_KEEPALIVE_SECONDS", "0.1").await, Sdk::new().await);
    let slow = Behaviour { prefill_ms: 1500, tokens_per_second: 4.0, ..Behaviour::default() };
    scene.behave(Engine::Vllm, &slow).await;
    let asked = json!({"prompt": PROMPT, "max_tokens": 5, "include_usage": true});
    let seen = sdk.run("stream", &chat(&scene, &scene.url("llm"), &asked)).await;
    assert_eq!((&seen["error"], seen["pieces"].as_array().unwrap().len()), (&Value::Null, 5));
    assert_eq!(seen["usages"][0]["completion_tokens"], 5);
    let attempt = only_attempt(&scene.db, &seen["invocation"]).await;
    assert_eq!((attempt.outcome.as_str(), attempt.count("ot"), attempt.count("tokens")), ("finished", 5, 5));
    let raw = sdk.run("comments", &chat(&scene, &scene.url("llm"), &asked)).await;
    assert!(raw["comments"].as_u64().unwrap() >= 5, "{raw}");
    assert_eq!(raw["others"], json!([]));
    assert_eq!(raw["events"], 5 + 3);
}

#[tokio::test]
async fn each_refusal_becomes_the_sdks_own_exception() {
    let (mut scene, sdk) = (Scene::start().await, Sdk::new().await);
    let poor = scene.user("poor", 0, &[]).await;
    let hasty = scene.user("hasty", 100, &["--rate", "1"]).await;
    scene.chute(json!({"name": "empty", "template": "vllm", "concurrency": 1, "cords": chat_cord()})).await;
    let sample = scene.sample_key();
    let (llm, nothing) = (scene.url("llm"), json!({"prompt": PROMPT}));
    let refused = async |key: &str, base_url: &str, more: Value| {
        let mut job = nothing.clone();
        job.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let task = scene.task(base_url, key, Engine::Vllm, &job);
        sdk.run("refused", &task).await["error"].clone()
    };

    let unknown = refused("cpk_wrong", &llm, json!({})).await;
    assert_error(&unknown, "AuthenticationError", 401, "authentication_error", "invalid_credential");

    let without_money = refused(&poor.key, &llm, json!({})).await;
    assert_error(&without_money, "APIStatusError", 402, "insufficient_quota", "insufficient_quota");
    assert!(text(&without_money["detail"]["message"]).contains("your quota of 0 calls per day"));

    let missing = refused(&sample, &llm, json!({"model": "nobody/nothing"})).await;
    assert_error(&missing, "NotFoundError", 404, "not_found_error", "model_not_found");
    assert_eq!(missing["detail"], "model not found: nobody/nothing");
    let no_host = refused(&sample, &scene.url("no-such-chute"), json!({})).await;
    assert_error(&no_host, "NotFoundError", 404, "not_found_error", "unknown_chute");

    let large = refused(&sample, &llm, json!({"repeat": 2_000_000})).await;
    assert_error(&large, "APIStatusError", 413, "invalid_request_error", "body_too_large");

    let first = refused(&hasty.key, &llm, json!({})).await;
    assert_eq!(first, Value::Null);
    let second = refused(&hasty.key, &llm, json!({})).await;
    assert_error(&second, "RateLimitError", 429, "rate_limit_error", "rate_limited");
    assert!((1..=60).contains(&seconds(&second)));

    let nobody = refused(&sample, &llm, json!({"model": "empty"})).await;
    assert_error(&nobody, "InternalServerError", 503, "server_error", "no_instance");
    assert!(seconds(&nobody) >= 1);
}

#[tokio::test]
async fn an_instance_that_dies_in_a_stream_makes_the_sdk_raise_and_is_not_continued_elsewhere() {
    let (scene, sdk) = (Scene::start().await, Sdk::new().await);
    let dying = Behaviour { fault: Fault::DieAfter { chunks: 5 }, ..Behaviour::default() };
    scene.behave(Engine::Vllm, &dying).await;
    let task = chat(&scene, &scene.url("llm"), &json!({"prompt": PROMPT, "max_tokens": 40}));
    let seen = sdk.run("stream", &task).await;
    assert_eq!(seen["pieces"].as_array().unwrap().len(), 5);
    assert_eq!(seen["error"]["exception"], "APIError");
    assert_eq!(seen["error"]["type"], "server_error");
    assert!(seen["error"]["code"].is_string());
    let attempt = only_attempt(&scene.db, &seen["invocation"]).await;
    assert_eq!((attempt.outcome.as_str(), attempt.delivered), ("failed", true));
    assert!(attempt.error_message.is_some());
    assert_eq!(attempt.count("ot"), 5);
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_instances_work_and_leaves_one_partial_record() {
    let (scene, sdk) = (Scene::start().await, Sdk::new().await);
    let slow = Behaviour { tokens_per_second: 20.0, ..Behaviour::default() };
    scene.behave(Engine::Vllm, &slow).await;
    let leaving = json!({"prompt": PROMPT, "max_tokens": 400, "leave_after": 7});
    let seen = sdk.run("stream", &chat(&scene, &scene.url("llm"), &leaving)).await;
    assert_eq!(seen["pieces"].as_array().unwrap().len(), 7);
    let closed = scene.closed_early(Engine::Vllm).await;
    let left_at = Duration::from_secs_f64(seen["left_at"].as_f64().unwrap());
    let noticed = Duration::from_micros(closed.at_us.unsigned_abs()).saturating_sub(left_at);
    assert!(noticed < Duration::from_secs(2), "the instance worked on for {noticed:?}");
    let attempt = only_attempt(&scene.db, &seen["invocation"]).await;
    assert_eq!((attempt.outcome.as_str(), attempt.delivered, &attempt.error_message), ("aborted", true, &None));
    let counted = attempt.count("ot");
    assert!((7..=closed.chunks as u64).contains(&counted), "{counted} of {}", closed.chunks);
}

/// The one cord of a text chute that no instance runs.
fn chat_cord() -> Value {
    json!([{
        "function": "chat", "path": "/chat", "public_path": "/v1/chat/completions", "public_method": "POST",
        "stream": false, "passthrough": true, "content_type": "application/json",
    }])
}

fn assert_error(error: &Value, exception: &str, status: u16, kind: &str, code: &str) {
    let seen = (&error["exception"], &error["status"], &error["type"], &error["code"], &error["param"]);
    assert_eq!(seen, (&json!(exception), &json!(status), &json!(kind), &json!(code), &Value::Null), "{error}");
    let detail = error["detail"].get("message").unwrap_or(&error["detail"]);
    assert_eq!(text(&error["message"]), format!("Error code: {status} - {}", text(detail)));
    assert!(error["invocation"].is_string(), "{error}");
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

/// `Retry-After`.
fn seconds(error: &Value) -> u64 {
    text(&error["retry_after"]).parse().unwrap()
}
