//! How much prompt there is, for the estimate that a claimed number of tokens is held against.

use std::fmt;

use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// Bytes of text that count as one token.
const BYTES_PER_TOKEN: u64 = 4;

/// UTF-8 bytes of text in a prompt of any form: a text, a token, an object with a `text`, or a list of these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TextBytes(pub(super) u64);

impl TextBytes {
    /// Estimated tokens: four bytes are one, rounded up.
    pub(super) fn tokens(self) -> u64 {
        self.0.div_ceil(BYTES_PER_TOKEN)
    }
}

impl<'de> Deserialize<'de> for TextBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Prompt).map(Self)
    }
}

struct Prompt;

impl<'de> Visitor<'de> for Prompt {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a prompt")
    }

    fn visit_unit<E>(self) -> Result<u64, E> {
        Ok(0)
    }

    fn visit_bool<E>(self, _: bool) -> Result<u64, E> {
        Ok(0)
    }

    fn visit_u64<E>(self, _token: u64) -> Result<u64, E> {
        Ok(BYTES_PER_TOKEN)
    }

    fn visit_i64<E>(self, _: i64) -> Result<u64, E> {
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
        while let Some(part) = seq.next_element::<TextBytes>()? {
            bytes = bytes.saturating_add(part.0);
        }
        Ok(bytes)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<u64, A::Error> {
        let mut bytes = 0_u64;
        while let Some(name) = map.next_key::<String>()? {
            if name == "text" {
                bytes = map.next_value::<TextBytes>()?.0;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(bytes)
    }
}
