//! The messages of a chat: how much text they hold, and whether their tool calls can be read.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::fields::Fields;
use super::prompt::TextBytes;

/// Messages a chat may have.
const MOST_MESSAGES: usize = 65_536;
/// Tool calls a message may have.
const MOST_CALLS: usize = 1_024;

/// What is looked at in all messages.
#[derive(Debug, Default)]
pub(super) struct Messages {
    /// Their text.
    pub(super) text: TextBytes,
    /// The worst arguments of their tool calls.
    pub(super) arguments: Arguments,
}

/// The arguments of a tool call, from good to worst.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Arguments {
    /// JSON, or none.
    #[default]
    Good,
    /// An empty text.
    Empty,
    /// A text that is no JSON.
    Bad,
}

#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    content: TextBytes,
    #[serde(default)]
    tool_calls: Option<Vec<ToolCall>>,
}

#[derive(Deserialize)]
struct ToolCall {
    #[serde(default)]
    function: Option<Function>,
}

#[derive(Deserialize)]
struct Function {
    #[serde(default)]
    arguments: Arguments,
}

impl<'de> Deserialize<'de> for Arguments {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?.get();
        if !raw.starts_with('"') {
            return Ok(Self::Good);
        }
        let text: Cow<'_, str> = serde_json::from_str(raw).map_err(de::Error::custom)?;
        if text.is_empty() {
            return Ok(Self::Empty);
        }
        Ok(if serde_json::from_str::<IgnoredAny>(&text).is_ok() { Self::Good } else { Self::Bad })
    }
}

impl<'de> Deserialize<'de> for Messages {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;

        impl<'de> Visitor<'de> for List {
            type Value = Messages;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of messages")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Messages, A::Error> {
                let mut all = Messages::default();
                let mut count = 0_usize;
                while let Some(message) = seq.next_element::<Message>()? {
                    let calls = message.tool_calls.unwrap_or_default();
                    count += 1;
                    if count > MOST_MESSAGES || calls.len() > MOST_CALLS {
                        return Err(de::Error::custom("too many messages or tool calls"));
                    }
                    let worst = calls.into_iter().filter_map(|call| call.function).map(|it| it.arguments).max();
                    all.text.0 = all.text.0.saturating_add(message.content.0);
                    all.arguments = all.arguments.max(worst.unwrap_or_default());
                }
                Ok(all)
            }
        }

        deserializer.deserialize_seq(List)
    }
}

/// The same list of messages, with the text `null` for each empty text of arguments.
pub(super) fn with_null_arguments(list: &str) -> serde_json::Result<Vec<Box<RawValue>>> {
    let messages: Vec<&RawValue> = serde_json::from_str(list)?;
    messages
        .into_iter()
        .map(|message| {
            let mut message: Fields<'_> = serde_json::from_str(message.get())?;
            let calls: Option<Vec<Fields<'_>>> = message.read("tool_calls")?;
            if let Some(calls) = calls {
                let calls = calls.into_iter().map(mended).collect::<serde_json::Result<Vec<_>>>()?;
                message.set("tool_calls", &calls);
            }
            Ok(message.to_raw())
        })
        .collect()
}

fn mended(mut call: Fields<'_>) -> serde_json::Result<Box<RawValue>> {
    let function: Option<Fields<'_>> = call.read("function")?;
    if let Some(mut function) = function
        && function.read::<Arguments>("arguments")? == Some(Arguments::Empty)
    {
        function.set("arguments", &"null");
        let function = function.to_raw();
        call.set("function", &function);
    }
    Ok(call.to_raw())
}
