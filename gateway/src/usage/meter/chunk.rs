//! Reads one chunk of an engine's stream, as far as it is counted.

use std::fmt;

use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::Claim;

/// What counts in a chunk.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Chunk {
    /// Whether it holds a piece of the answer.
    pub(super) content: bool,
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
    text: Filled,
}

#[derive(Deserialize)]
struct Delta {
    #[serde(default)]
    content: Filled,
    #[serde(default)]
    reasoning_content: Filled,
    #[serde(default)]
    reasoning: Filled,
    #[serde(default)]
    tool_calls: Filled,
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
        let choices = choices.unwrap_or(Choices { any: true, content: false });
        let error = event.error.map(|raw| StreamError {
            code: serde_json::from_str::<Code>(raw.get()).ok().and_then(|code| code.code),
            event: String::from_utf8_lossy(data).into_owned(),
        });
        Some(Self { content: choices.content, claimed: event.usage.and_then(claim), error, choices: choices.any })
    }

    /// Whether it tells the usage and nothing else.
    pub(super) fn only_usage(&self) -> bool {
        self.claimed.is_some() && !self.choices && self.error.is_none()
    }
}

/// The usage claimed by an answer in one piece.
pub(super) fn usage_of(answer: &[u8]) -> Option<Claim> {
    #[derive(Deserialize)]
    struct Answer<'a> {
        #[serde(borrow, default)]
        usage: Option<&'a RawValue>,
    }
    serde_json::from_slice::<Answer<'_>>(answer).ok()?.usage.and_then(claim)
}

fn claim(usage: &RawValue) -> Option<Claim> {
    let usage: Usage = serde_json::from_str(usage.get()).ok()?;
    Some(Claim { prompt: usage.prompt_tokens, completion: usage.completion_tokens.unwrap_or(0) })
}

/// Whether there are choices, and any with content.
#[derive(Default)]
struct Choices {
    any: bool,
    content: bool,
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
                    choices.content |= choice.text.0 || choice.delta.is_some_and(|delta| delta.is_filled());
                }
                Ok(choices)
            }
        }

        deserializer.deserialize_seq(List)
    }
}

impl Delta {
    fn is_filled(&self) -> bool {
        self.content.0 || self.reasoning_content.0 || self.reasoning.0 || self.tool_calls.0
    }
}

/// Whether a value is a text or a list with something in it.
#[derive(Default)]
struct Filled(bool);

impl<'de> Deserialize<'de> for Filled {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = bool;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }

            fn visit_unit<E>(self) -> Result<bool, E> {
                Ok(false)
            }

            fn visit_bool<E>(self, _: bool) -> Result<bool, E> {
                Ok(false)
            }

            fn visit_i64<E>(self, _: i64) -> Result<bool, E> {
                Ok(false)
            }

            fn visit_u64<E>(self, _: u64) -> Result<bool, E> {
                Ok(false)
            }

            fn visit_f64<E>(self, _: f64) -> Result<bool, E> {
                Ok(false)
            }

            fn visit_str<E>(self, text: &str) -> Result<bool, E> {
                Ok(!text.is_empty())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<bool, A::Error> {
                let mut filled = false;
                while seq.next_element::<IgnoredAny>()?.is_some() {
                    filled = true;
                }
                Ok(filled)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(false)
            }
        }

        deserializer.deserialize_any(Any).map(Self)
    }
}
