//! A principal as gateways read it: a key, a version, an entry.

use protocol::keys::Key;
use protocol::principal::Versioned;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A principal, ready to be posted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Posting {
    /// Where it stands.
    pub key: Key,
    /// Grows with each change of its row.
    pub version: u64,
    /// The entry as JSON.
    pub entry: String,
}

impl Posting {
    /// The posting of an entry.
    #[must_use]
    pub fn new<T: Serialize + DeserializeOwned>(key: Key, entry: &Versioned<T>) -> Self {
        let [_, (_, text)] = entry.to_fields();
        Self { key, version: entry.version, entry: text }
    }
}
