//! The body of `GET /v1/models`: which models anybody may call.

use std::cmp::Reverse;

use bytes::Bytes;
use protocol::directory::{Chute, Template, TokenPrice};
use protocol::ids::UserId;
use serde_json::{Map, Value, json};

/// Micro-dollars in a dollar.
const MICROS: f64 = 1e6;

/// The public LLM chutes of official users, most called first, each as its engine describes it under the chute's name.
#[must_use]
pub fn models<'a>(chutes: impl IntoIterator<Item = &'a Chute>, official: &[UserId]) -> Bytes {
    let mut listed: Vec<(&Chute, &Map<String, Value>)> = chutes
        .into_iter()
        .filter(|chute| chute.public && chute.template == Some(Template::Vllm) && official.contains(&chute.owner))
        .filter_map(|chute| chute.model.as_ref().and_then(Value::as_object).map(|model| (chute, model)))
        .collect();
    listed.sort_by_key(|(chute, _)| (Reverse(chute.invocations), chute.name.as_str(), chute.id));
    let data: Vec<Value> = listed.into_iter().map(|(chute, model)| Value::Object(entry(chute, model))).collect();
    Bytes::from(json!({ "object": "list", "data": data }).to_string())
}

fn entry(chute: &Chute, model: &Map<String, Value>) -> Map<String, Value> {
    let mut entry = model.clone();
    entry.insert("id".into(), json!(chute.name));
    if let Some(TokenPrice { input, output }) = chute.price {
        let (input, output) = (dollars(input), dollars(output));
        // No source of TAO prices exists yet; clients expect the field.
        let price = json!({ "input": { "usd": input, "tao": null }, "output": { "usd": output, "tao": null } });
        entry.insert("price".into(), price);
        entry.insert("pricing".into(), json!({ "prompt": input, "completion": output }));
    }
    entry
}

/// Micro-dollars as dollars for display: the shortest decimal of the quotient is exact up to 15 digits.
fn dollars(micros: u64) -> f64 {
    micros as f64 / MICROS
}

#[cfg(test)]
mod tests;
