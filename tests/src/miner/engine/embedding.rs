//! Deterministic vectors in the shape of OpenAI's embedding answers.

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const DEFAULT_DIMENSIONS: u64 = 64;
const MOST_DIMENSIONS: u64 = 4096;

/// Answers an embedding request: one vector per input, as floats or as base64 of little-endian `f32`.
///
/// # Errors
/// When the request is not one.
pub(super) fn answer(model: &str, body: &Value) -> anyhow::Result<Value> {
    let inputs: Vec<&str> = match body.get("input") {
        Some(Value::String(text)) => vec![text],
        Some(Value::Array(texts)) => {
            texts.iter().map(|text| text.as_str().context("input must be text")).collect::<Result<_, _>>()?
        }
        _ => bail!("input must be text or a list of texts"),
    };
    let dimensions = body.get("dimensions").and_then(Value::as_u64).unwrap_or(DEFAULT_DIMENSIONS);
    let packed = body.get("encoding_format").and_then(Value::as_str) == Some("base64");
    let vectors = inputs.iter().map(|text| vector(text, dimensions.clamp(1, MOST_DIMENSIONS)));
    let data: Vec<Value> = vectors
        .enumerate()
        .map(|(index, vector)| json!({"object": "embedding", "index": index, "embedding": encode(&vector, packed)}))
        .collect();
    let tokens: usize = inputs.iter().map(|text| text.len().div_ceil(4)).sum();
    Ok(json!({
        "object": "list", "model": model, "data": data,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }))
}

fn encode(vector: &[f32], packed: bool) -> Value {
    if packed {
        let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
        json!(STANDARD.encode(bytes))
    } else {
        json!(vector)
    }
}

/// A vector of length one that depends on the text alone.
fn vector(text: &str, dimensions: u64) -> Vec<f32> {
    let number = |index: u64| {
        let digest = Sha256::new().chain_update(text).chain_update(index.to_le_bytes()).finalize();
        f32::from(i16::from_le_bytes([digest[0], digest[1]]))
    };
    let raw: Vec<f32> = (0..dimensions).map(number).collect();
    let length = raw.iter().map(|number| number * number).sum::<f32>().sqrt().max(1.0);
    raw.iter().map(|number| number / length).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_encodings_carry_the_same_vector() {
        let floats = answer("m", &json!({"input": "Hello", "dimensions": 3})).unwrap();
        let packed = answer("m", &json!({"input": ["Hello"], "dimensions": 3, "encoding_format": "base64"})).unwrap();
        let bytes = STANDARD.decode(packed["data"][0]["embedding"].as_str().unwrap()).unwrap();
        let unpacked: Vec<f32> = bytes.chunks(4).map(|chunk| f32::from_le_bytes(chunk.try_into().unwrap())).collect();
        let read: Vec<f32> = serde_json::from_value(floats["data"][0]["embedding"].clone()).unwrap();
        assert_eq!(read, unpacked);
    }
}
