//! The fields of a JSON object in their order, each value in the client's own bytes until it is replaced.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::{RawValue, to_raw_value};

/// Fields an object may have; engines know fewer than a hundred.
const MOST_FIELDS: usize = 256;

/// A JSON object read one level deep.
#[derive(Debug, Default)]
pub(super) struct Fields<'a>(Vec<(Cow<'a, str>, Cow<'a, RawValue>)>);

impl<'a> Fields<'a> {
    /// The value of a field in JSON; `null` counts as not there.
    pub(super) fn get(&self, name: &str) -> Option<&RawValue> {
        let (_, value) = self.0.iter().find(|(known, _)| known == name)?;
        Some(value.as_ref()).filter(|value| value.get() != "null")
    }

    /// Reads a field, if it is there.
    pub(super) fn read<'b, T: Deserialize<'b>>(&'b self, name: &str) -> serde_json::Result<Option<T>> {
        self.get(name).map(|value| serde_json::from_str(value.get())).transpose()
    }

    /// Replaces a field where it stands, or adds it at the end.
    ///
    /// # Panics
    /// Never: what is set here always serialises.
    pub(super) fn set(&mut self, name: &'static str, value: &impl Serialize) {
        let value = to_raw_value(value).expect("texts, flags, numbers and fields serialise");
        self.put(Cow::Borrowed(name), Cow::Owned(value));
    }

    /// Takes a field out.
    pub(super) fn remove(&mut self, name: &str) {
        self.0.retain(|(known, _)| known != name);
    }

    /// The names of all fields.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_ref())
    }

    /// The object as text.
    ///
    /// # Panics
    /// Never: names are texts and values are JSON.
    pub(super) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("fields serialise")
    }

    /// The object as a value of another one.
    ///
    /// # Panics
    /// Never: names are texts and values are JSON.
    pub(super) fn to_raw(&self) -> Box<RawValue> {
        to_raw_value(self).expect("fields serialise")
    }

    /// Of a field given twice the last counts, as in the engines' Python.
    fn put(&mut self, name: Cow<'a, str>, value: Cow<'a, RawValue>) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, held)) => *held = value,
            None => self.0.push((name, value)),
        }
    }
}

/// A name that stays in the input where it has no escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Fields::default();
                while let Some(name) = map.next_key::<Name<'de>>()? {
                    fields.put(name.0, Cow::Borrowed(map.next_value::<&'de RawValue>()?));
                    if fields.0.len() > MOST_FIELDS {
                        return Err(de::Error::custom(format_args!("more than {MOST_FIELDS} fields")));
                    }
                }
                Ok(fields)
            }
        }

        deserializer.deserialize_map(Object)
    }
}

impl Serialize for Fields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value.as_ref())?;
        }
        map.end()
    }
}
