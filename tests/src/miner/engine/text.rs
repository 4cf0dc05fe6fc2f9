//! Deterministic text in the shapes of OpenAI's chat and completion answers.

use anyhow::Context;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Tokens where the request names no number.
const DEFAULT_TOKENS: u64 = 16;
/// Most tokens an answer has.
const MOST_TOKENS: u64 = 1_000_000;
const CREATED: u64 = 1_750_000_000;
const WORDS: [&str; 32] = [
    "light", "stone", "river", "quiet", "amber", "north", "paper", "signal", "garden", "winter", "copper", "letter",
    "meadow", "orbit", "pillar", "ribbon", "silver", "timber", "umbrella", "valley", "window", "yellow", "anchor",
    "bridge", "candle", "dragon", "engine", "feather", "harbor", "island", "jacket", "kettle",
];

/// One answer, token by token.
pub struct TextStream {
    chat: bool,
    model: String,
    id: String,
    seed: [u8; 32],
    total: usize,
    prompt_tokens: usize,
    usage: bool,
    next: Step,
}

/// What comes next in a stream.
enum Step {
    Role,
    Token(usize),
    Finish,
    Usage,
    Done,
    Over,
}

/// One event of a stream.
pub struct Event {
    /// The text after `data: `.
    pub data: String,
    /// Whether it carries a token.
    pub token: bool,
}

impl TextStream {
    /// The answer to a chat.
    ///
    /// # Errors
    /// When the request is not one.
    pub fn chat(model: &str, body: &Value) -> anyhow::Result<Self> {
        let messages = body.get("messages").and_then(Value::as_array).context("messages must be a list")?;
        let prompt: String = messages.iter().filter_map(|message| message.get("content")?.as_str()).collect();
        Ok(Self::new(true, model, &prompt, body, Step::Role))
    }

    /// The answer to a text completion.
    ///
    /// # Errors
    /// When the request is not one.
    pub fn completion(model: &str, body: &Value) -> anyhow::Result<Self> {
        let prompt = super::prompt(body)?;
        Ok(Self::new(false, model, prompt, body, Step::Token(0)))
    }

    fn new(chat: bool, model: &str, prompt: &str, body: &Value, first: Step) -> Self {
        let number = |name: &str| body.get(name).and_then(Value::as_u64);
        let wanted = number("max_completion_tokens").or_else(|| number("max_tokens")).unwrap_or(DEFAULT_TOKENS);
        let seed: [u8; 32] = Sha256::digest(prompt.as_bytes()).into();
        let usage = body.pointer("/stream_options/include_usage").and_then(Value::as_bool).unwrap_or(false);
        Self {
            chat,
            model: model.to_owned(),
            id: format!("cmpl-{}", hex::encode(&seed[..8])),
            seed,
            total: usize::try_from(wanted.clamp(1, MOST_TOKENS)).unwrap_or(1),
            prompt_tokens: prompt.len().div_ceil(4).max(1),
            usage,
            next: first,
        }
    }

    /// How many tokens the answer has.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.total
    }

    /// The next event; none after `[DONE]`.
    pub fn next_event(&mut self) -> Option<Event> {
        let (event, next) = match self.next {
            Step::Role => (self.chunk(json!({"role": "assistant", "content": ""}), "", None), Step::Token(0)),
            Step::Token(index) => {
                let word = self.word(index);
                let next = if index + 1 < self.total { Step::Token(index + 1) } else { Step::Finish };
                (self.chunk(json!({"content": word}), &word, None), next)
            }
            Step::Finish => {
                let next = if self.usage { Step::Usage } else { Step::Done };
                (self.chunk(json!({}), "", Some("length")), next)
            }
            Step::Usage => (self.envelope(json!([]), self.usage()), Step::Done),
            Step::Done => ("[DONE]".to_owned(), Step::Over),
            Step::Over => return None,
        };
        let token = matches!(self.next, Step::Token(_));
        self.next = next;
        Some(Event { data: event, token })
    }

    /// The answer in one piece.
    #[must_use]
    pub fn whole(&self) -> Value {
        let text: String = (0..self.total).map(|index| self.word(index)).collect();
        let (object, choice) = if self.chat {
            let message = json!({"role": "assistant", "content": text});
            ("chat.completion", json!({"index": 0, "message": message, "logprobs": null, "finish_reason": "length"}))
        } else {
            ("text_completion", json!({"index": 0, "text": text, "logprobs": null, "finish_reason": "length"}))
        };
        json!({
            "id": self.id, "object": object, "created": CREATED, "model": self.model, "choices": [choice],
            "usage": self.usage(),
        })
    }

    fn chunk(&self, delta: Value, text: &str, finish: Option<&str>) -> String {
        let choice = if self.chat {
            json!({"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish})
        } else {
            json!({"index": 0, "text": text, "logprobs": null, "finish_reason": finish})
        };
        self.envelope(json!([choice]), Value::Null)
    }

    fn envelope(&self, choices: Value, usage: Value) -> String {
        let object = if self.chat { "chat.completion.chunk" } else { "text_completion" };
        let mut chunk = json!({
            "id": self.id, "object": object, "created": CREATED, "model": self.model, "choices": choices,
        });
        if !usage.is_null() {
            chunk["usage"] = usage;
        }
        chunk.to_string()
    }

    fn usage(&self) -> Value {
        json!({
            "prompt_tokens": self.prompt_tokens, "completion_tokens": self.total,
            "total_tokens": self.prompt_tokens + self.total,
        })
    }

    /// The word at a place, a function of the prompt alone.
    fn word(&self, index: usize) -> String {
        let byte = self.seed[index % self.seed.len()] as usize;
        let word = WORDS[(byte + index) % WORDS.len()];
        if index == 0 { word.to_owned() } else { format!(" {word}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(mut stream: TextStream) -> Vec<String> {
        std::iter::from_fn(|| stream.next_event()).map(|event| event.data).collect()
    }

    #[test]
    fn a_stream_says_the_same_as_the_answer_in_one_piece() {
        let body = json!({"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 40});
        let text: String = events(TextStream::chat("m", &body).unwrap())
            .iter()
            .filter_map(|data| serde_json::from_str::<Value>(data).ok())
            .filter_map(|chunk| Some(chunk.pointer("/choices/0/delta/content")?.as_str()?.to_owned()))
            .collect();
        let whole = TextStream::chat("m", &body).unwrap().whole();
        assert_eq!(whole.pointer("/choices/0/message/content").unwrap(), &json!(text));
        assert_eq!(text.split(' ').count(), 40);
    }

    #[test]
    fn usage_comes_only_when_asked_for() {
        let mut body = json!({"prompt": "Hello", "max_tokens": 2});
        assert_eq!(events(TextStream::completion("m", &body).unwrap()).len(), 4);
        body["stream_options"] = json!({"include_usage": true});
        let with = events(TextStream::completion("m", &body).unwrap());
        let usage: Value = serde_json::from_str(&with[3]).unwrap();
        assert_eq!(usage["usage"], json!({"prompt_tokens": 2, "completion_tokens": 2, "total_tokens": 4}));
        assert_eq!(usage["choices"], json!([]));
        assert_eq!(with[4], "[DONE]");
    }
}
