//! A call with an `Idempotency-Key`, sent by OpenAI's Python SDK, is in Postgres once.

use serde_json::{Value, json};
use stack::miner::{Behaviour, Engine};

use crate::records::only_attempt;
use crate::scene::Scene;
use crate::scripts::Sdk;

#[tokio::test]
async fn a_client_that_left_its_stream_gets_all_of_it_from_another_gateway_and_is_billed_once() {
    let (scene, sdk) = (Scene::start().await, Sdk::new().await);
    assert!(scene.gateways() > 1);
    let slow = Behaviour { tokens_per_second: 20.0, ..Behaviour::default() };
    scene.behave(Engine::Vllm, &slow).await;
    // The SDK waits as `Retry-After` says while the first call still runs.
    let asked = json!({"prompt": "Tell me about the sea.", "max_tokens": 40, "key": "a-key", "max_retries": 5});
    let call = async |gateway: usize, more: Value| {
        let mut asked = asked.clone();
        asked.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let task = scene.task(&scene.url_at("llm", gateway), &scene.sample_key(), Engine::Vllm, &asked);
        sdk.run("stream", &task).await
    };
    let left = call(0, json!({"leave_after": 7})).await;
    assert_eq!((left["pieces"].as_array().unwrap().len(), &left["replayed"]), (7, &Value::Null));
    for gateway in [1, 0] {
        let seen = call(gateway, json!({})).await;
        assert_eq!((&seen["error"], &seen["replayed"]), (&Value::Null, &json!("true")));
        assert_eq!(seen["pieces"].as_array().unwrap().len(), 40);
        assert_eq!(seen["invocation"], left["invocation"]);
    }
    let attempt = only_attempt(&scene.db, &left["invocation"]).await;
    assert_eq!((attempt.outcome.as_str(), attempt.delivered, attempt.count("ot")), ("finished", true, 40));
    let all = "select count(*) from invocations where function_name = 'chat_stream'";
    let all: i64 = sqlx::query_scalar(all).fetch_one(&scene.db).await.unwrap();
    assert_eq!(all, 1, "the answers that were given again have records");
}
