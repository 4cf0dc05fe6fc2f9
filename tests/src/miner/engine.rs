//! What an instance answers: deterministic text, vectors or a picture, in the form of the real engines.

mod embedding;
mod text;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub(in crate::miner) use text::TextStream;

/// A tiny JPEG: 8 × 8 grey pixels.
const PICTURE: &[u8] = include_bytes!("engine/picture.jpg");

/// What an instance runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// Text generation, as vLLM's OpenAI server does it.
    Vllm,
    /// Text embeddings.
    Embedding,
    /// Image generation.
    Diffusion,
}

/// What a cord gives back.
pub enum Answer {
    /// Pieces one by one.
    Stream(TextStream),
    /// JSON in one piece, and how many tokens it took.
    Json(Value, usize),
    /// Something else in one piece.
    Typed(&'static str, &'static [u8]),
    /// The engine's own error, passed on in clear.
    Error(u16, String),
}

impl Engine {
    /// Whether the cord at this path takes no argument.
    #[must_use]
    pub fn takes_nothing(self, path: &str) -> bool {
        matches!((self, path), (Self::Vllm, "/get_models"))
    }

    /// Answers a call of the cord at `path` (the instance's path: the function's name).
    #[must_use]
    pub fn answer(self, model: &str, path: &str, body: &Value) -> Answer {
        match (self, path) {
            (Self::Vllm, "/chat_stream") => Answer::stream(TextStream::chat(model, body)),
            (Self::Vllm, "/completion_stream") => Answer::stream(TextStream::completion(model, body)),
            (Self::Vllm, "/chat") => Answer::whole(TextStream::chat(model, body)),
            (Self::Vllm, "/completion") => Answer::whole(TextStream::completion(model, body)),
            (Self::Vllm, "/get_models") => Answer::Json(models(model), 0),
            (Self::Embedding, "/v1/embeddings") => match embedding::answer(model, body) {
                Ok(answer) => Answer::Json(answer, 0),
                Err(error) => Answer::Error(400, error.to_string()),
            },
            (Self::Diffusion, "/generate") => match prompt(body) {
                Ok(_) => Answer::Typed("image/jpeg", PICTURE),
                Err(error) => Answer::Error(400, error.to_string()),
            },
            _ => Answer::Error(404, "Not Found".into()),
        }
    }
}

impl Answer {
    fn stream(text: anyhow::Result<TextStream>) -> Self {
        text.map_or_else(|error| Self::Error(400, error.to_string()), Self::Stream)
    }

    fn whole(text: anyhow::Result<TextStream>) -> Self {
        text.map_or_else(|error| Self::Error(400, error.to_string()), |text| Self::Json(text.whole(), text.tokens()))
    }
}

fn prompt(body: &Value) -> anyhow::Result<&str> {
    body.get("prompt").and_then(Value::as_str).context("prompt must be text")
}

fn models(model: &str) -> Value {
    json!({"object": "list", "data": [model_object(model)]})
}

/// The model object that vLLM lists.
#[must_use]
pub fn model_object(model: &str) -> Value {
    json!({
        "id": model, "object": "model", "created": 1_750_000_000, "owned_by": "vllm", "root": model,
        "parent": null, "max_model_len": 32_768,
    })
}
