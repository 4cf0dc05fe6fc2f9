//! What a Python instance of SDK 0.3.33 is called with, in the form of its arguments that only Python reads.

use reqwest::StatusCode;
use serde_json::{Value, json};
use stack::secrets::random_instance_key;

use crate::records::only_attempt;
use crate::scene::Scene;
use crate::scripts;

/// All of JSON that Python holds for false, and some that it does not.
fn bodies() -> Vec<Value> {
    vec![
        json!({}),
        json!([]),
        json!(0),
        json!(0.0),
        json!(""),
        json!(null),
        json!(false),
        json!({"text": "ünïcødé ☃ 𝕏", "number": 1.5, "large": u64::MAX, "small": i64::MIN, "deep": [[{}], null]}),
        json!(["a", 1, true]),
    ]
}

#[tokio::test]
async fn falsy_bodies_and_query_parameters_reach_a_python_instance_exactly() {
    let mut scene = Scene::start().await;
    let chute = scene.chute(specification()).await;
    let _instance = scene.instance(&chute, scripts::instance().await, &random_instance_key()).await;
    let seen = async |path: &str, body: &Value| {
        let answer = scene.post(&chute.slug, path, body).await;
        assert_eq!(answer.status(), StatusCode::OK, "{path} with {body}: {}", answer.text().await.unwrap());
        answer.json::<Value>().await.unwrap()
    };
    for body in bodies() {
        let echoed = seen("/echo", &body).await;
        assert_eq!((&echoed["args"], &echoed["kwargs"]), (&json!([body]), &json!({})));

        let relayed = seen("/relay", &body).await;
        assert_eq!((&relayed["args"], &relayed["kwargs"]["json"]), (&json!([]), &body));

        let asked = seen("/relay?mode=a%20b&empty=&mode=last&ü=%26", &body).await;
        let params = json!({"mode": "last", "empty": "", "ü": "&"});
        assert_eq!(asked["kwargs"], json!({"json": body, "params": params}));
        assert_eq!(asked["serialized"], true);
    }
    let plain = seen("/relay", &json!({"truthy": 1})).await;
    assert_eq!((&plain["kwargs"], &plain["serialized"]), (&json!({"json": {"truthy": 1}}), &json!(false)));
}

#[tokio::test]
async fn a_python_instance_streams_its_lines_and_its_call_is_recorded() {
    let mut scene = Scene::start().await;
    let chute = scene.chute(specification()).await;
    let _instance = scene.instance(&chute, scripts::instance().await, &random_instance_key()).await;
    let answer = scene.post(&chute.slug, "/tell?to=whom", &json!([])).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(answer.headers()["content-type"].to_str().unwrap().starts_with("text/event-stream"));
    let invocation = json!(answer.headers()["x-chutes-invocationid"].to_str().unwrap());
    let text = answer.text().await.unwrap();
    let (event, rest) = text.split_once("\n\n").unwrap();
    let told: Value = serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!(told["kwargs"], json!({"json": [], "params": {"to": "whom"}}));
    assert_eq!(rest, "data: [DONE]\n\n");
    let attempt = only_attempt(&scene.db, &invocation).await;
    assert_eq!((attempt.function_name.as_str(), attempt.chute_id.to_string()), ("tell", chute.id));
    assert_eq!((attempt.outcome.as_str(), attempt.delivered, attempt.metrics), ("finished", true, None));
}

fn cord(function: &str, passthrough: bool, stream: bool) -> Value {
    let path = format!("/{function}");
    json!({
        "function": function, "path": path, "public_path": path, "public_method": "POST", "stream": stream,
        "passthrough": passthrough, "content_type": if stream { "text/event-stream" } else { "application/json" },
    })
}

/// A chute without a template, with the cords of the Python instance.
fn specification() -> Value {
    let cords = [cord("echo", false, false), cord("relay", true, false), cord("tell", true, true)];
    json!({ "name": "python", "concurrency": 4, "cords": cords })
}
