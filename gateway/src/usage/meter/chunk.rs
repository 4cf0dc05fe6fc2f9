//! Reads a chunk of an engine's stream, or its answer in one piece, as far as it is counted.

use std::fmt;

use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::Claim;

/// What counts in a chunk.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Chunk {
    /// Bytes of completion text, reasoning and tool calls included.
    pub(super) text: u64,
    /// The usage it claims.
    pub(super) claimed: Option<Claim>,
    /// The error it reports.
    pub(super) error: Option<StreamError>,
    choices: bool,
}

/// An error that an instance sent as an event of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamError {
    /// The status it names.
    pub code: Option<u16>,
    /// The event's JSON, as it came.
    pub event: String,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, default)]
    choices: Option<&'a RawValue>,
    #[serde(borrow, default)]
    usage: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    delta: Option<Delta>,
    #[serde(default)]
    message: Option<Delta>,
    #[serde(default)]
    text: Text,
}

/// A message, or what a chunk adds to it.
#[derive(Deserialize)]
struct Delta {
    #[serde(default)]
    content: Text,
    #[serde(default)]
    reasoning_content: Text,
    #[serde(default)]
    reasoning: Text,
    #[serde(default)]
    tool_calls: Text,
}

#[derive(Deserialize)]
struct Usage {
    prompt_tokens: u64,
    #[serde(default)]
    completion_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct Code {
    code: Option<u16>,
}

impl Chunk {
    /// Reads the data of an event; none where it is no JSON object.
    pub(super) fn read(data: &[u8]) -> Option<Self> {
        let event: Event<'_> = serde_json::from_slice(data).ok()?;
        // A list that is not of choices has something in it, but nothing to count.
        let choices = event.choices.map_or(Ok(Choices::default()), |raw| serde_json::from_str(raw.get()));
        let choices = choices.unwrap_or(Choices { any: true, text: 0 });
        let error = event.error.map(|raw| StreamError {
            code: serde_json::from_str::<Code>(raw.get()).ok().and_then(|code| code.code),
            event: String::from_utf8_lossy(data).into_owned(),
        });
        Some(Self { text: choices.text, claimed: event.usage.and_then(claim), error, choices: choices.any })
    }

    /// Whether it tells the usage and nothing else.
    pub(super) fn only_usage(&self) -> bool {
        self.claimed.is_some() && !self.choices && self.error.is_none()
    }
}

fn claim(usage: &RawValue) -> Option<Claim> {
    let usage: Usage = serde_json::from_str(usage.get()).ok()?;
    Some(Claim { prompt: usage.prompt_tokens, completion: usage.completion_tokens.unwrap_or(0) })
}

/// Whether there are choices, and how much text they hold.
#[derive(Default)]
struct Choices {
    any: bool,
    text: u64,
}

impl<'de> Deserialize<'de> for Choices {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;

        impl<'de> Visitor<'de> for List {
            type Value = Choices;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of choices")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Choices, A::Error> {
                let mut choices = Choices::default();
                while let Some(choice) = seq.next_element::<Choice>()? {
                    choices.any = true;
                    let parts = [choice.delta, choice.message].into_iter().flatten().map(|delta| delta.text());
                    choices.text = parts.fold(choices.text.saturating_add(choice.text.0), u64::saturating_add);
                }
                Ok(choices)
            }
        }

        deserializer.deserialize_seq(List)
    }
}

impl Delta {
    fn text(&self) -> u64 {
        let parts = [self.content.0, self.reasoning_content.0, self.reasoning.0, self.tool_calls.0];
        parts.into_iter().fold(0, u64::saturating_add)
    }
}

/// Bytes of all texts within a value; a list counts at least one for each of its elements.
#[derive(Default)]
struct Text(u64);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue).map(Self)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<u64, E> {
        Ok(0)
    }

    fn visit_bool<E>(self, _: bool) -> Result<u64, E> {
        Ok(0)
    }

    fn visit_i64<E>(self, _: i64) -> Result<u64, E> {
        Ok(0)
    }

    fn visit_u64<E>(self, _: u64) -> Result<u64, E> {
        Ok(0)
    }

    fn visit_f64<E>(self, _: f64) -> Result<u64, E> {
        Ok(0)
    }

    fn visit_str<E>(self, text: &str) -> Result<u64, E> {
        Ok(text.len() as u64)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<u64, A::Error> {
        let mut bytes = 0_u64;
        while let Some(Text(element)) = seq.next_element()? {
            bytes = bytes.saturating_add(element.max(1));
        }
        Ok(bytes)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<u64, A::Error> {
        let mut bytes = 0_u64;
        while let Some((_, Text(value))) = map.next_entry::<IgnoredAny, Text>()? {
            bytes = bytes.saturating_add(value);
        }
        Ok(bytes)
    }
}
