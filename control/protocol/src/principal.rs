//! What a gateway knows about a caller, as versioned Redis hashes.
//!
//! Each hash has two fields: `v`, the version of the row (a decimal), and `d`, the entry as JSON. Control writes them
//! in commit order through [`WRITE_SCRIPT`], so that an older version never replaces a newer one.

use std::collections::{BTreeMap, HashMap};

use chrono::NaiveDate;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::credential::{KeyHash, Scopes};
use crate::ids::{ApiKeyId, ChuteId, UserId, WriterId};

/// Lua: `KEYS[1]` hash, `ARGV[1]` version, `ARGV[2]` entry; returns 0 when written, else the newer version that is there.
pub const WRITE_SCRIPT: &str = "\
local held = redis.call('HGET', KEYS[1], 'v')
if held and tonumber(held) > tonumber(ARGV[1]) then return tonumber(held) end
redis.call('HSET', KEYS[1], 'v', ARGV[1], 'd', ARGV[2])
return 0";

/// Lua: `KEYS[1]` hash, `KEYS[2]` marker of completeness; returns the fields of both as they are at one moment.
///
/// It says that it writes nothing: a Redis without memory takes no transaction, and no script that might write.
pub const READ_SCRIPT: &str = "\
#!lua flags=no-writes
return {redis.call('HGETALL', KEYS[1]), redis.call('HGETALL', KEYS[2])}";

/// Field with the version.
pub const VERSION_FIELD: &str = "v";
/// Field with the entry.
pub const ENTRY_FIELD: &str = "d";

/// An entry with the version of the row it was made from.
#[derive(Clone, Debug, PartialEq)]
pub struct Versioned<T> {
    /// Grows with each change of the row.
    pub version: u64,
    /// The entry.
    pub entry: T,
}

/// A hash that is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum Malformed {
    /// A field is missing.
    #[error("principal has no field {0}")]
    Missing(&'static str),
    /// The version is not a number.
    #[error("principal has the version {0}")]
    Version(String),
    /// The entry is not JSON of the type.
    #[error("principal cannot be read: {0}")]
    Entry(#[from] serde_json::Error),
}

/// `key:{id}`: one API key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeyEntry {
    /// The key's identifier.
    pub id: ApiKeyId,
    /// SHA-256 of the key's whole text.
    pub hash: KeyHash,
    /// Whose key it is.
    pub user: UserId,
    /// What it may do.
    pub scopes: Scopes,
    /// Whether it was withdrawn. A revoked key stays in Redis so that an older version cannot bring it back.
    pub revoked: bool,
}

/// `user:{id}`: one user's identity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UserEntry {
    /// The user's identifier.
    pub id: UserId,
    /// The user's name.
    pub username: String,
    /// Generation of session tokens; older ones are refused.
    pub generation: u32,
    /// Permission bits, see [`permission`].
    pub permissions: u64,
    /// Calls per minute, instead of the gateway's default.
    pub rate_per_minute: Option<u32>,
    /// Calls at once, instead of the gateway's default.
    pub max_concurrent: Option<u32>,
    /// Calls per day that cost nothing. Always has the bucket [`Bucket::Default`].
    pub quotas: BTreeMap<Bucket, u64>,
    /// Whether the account was deleted. It stays in Redis for the same reason as a revoked key.
    pub deleted: bool,
}

/// `hotkey:{ss58}`: whose hotkey it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HotkeyEntry {
    /// The account; none when the hotkey was given up.
    pub user: Option<UserId>,
}

/// `funds:{id}`: what a user has and has used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FundsEntry {
    /// Balance in pico-dollars.
    #[serde(with = "decimal_text")]
    pub balance: i128,
    /// The UTC day that `used` counts.
    pub day: NaiveDate,
    /// Calls of that day that are in Postgres, by bucket.
    pub used: BTreeMap<Bucket, u64>,
    /// Per writer the highest contiguous sequence that `used` includes; a gateway adds its own calls above it.
    pub marks: BTreeMap<WriterId, u64>,
}

/// `principals:complete`: every principal is in Redis, so that a miss means "does not exist".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Complete {
    /// Number of users, deleted ones included.
    pub users: u64,
    /// Number of API keys, revoked ones included.
    pub keys: u64,
    /// Whether the operator insists on this set although it looks too small.
    pub forced: bool,
}

impl Complete {
    /// Whether this set may stand for the last good one: not empty, not by more than half smaller.
    #[must_use]
    pub fn may_replace(&self, current: &Self) -> bool {
        let halved = |next: u64, held: u64| next.saturating_mul(2) < held;
        self.forced || !(halved(self.users, current.users) || halved(self.keys, current.keys))
    }
}

/// Which daily allowance a call counts against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bucket {
    /// The allowance for all chutes without one of their own; written `*`.
    Default,
    /// The allowance for one chute.
    Chute(ChuteId),
}

impl std::fmt::Display for Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Default => f.write_str("*"),
            Self::Chute(id) => id.fmt(f),
        }
    }
}

impl std::str::FromStr for Bucket {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "*" { Ok(Self::Default) } else { text.parse().map(Self::Chute) }
    }
}

impl Serialize for Bucket {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Bucket {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Permission bits of a user.
pub mod permission {
    /// Invocation costs nothing.
    pub const FREE_ACCOUNT: u64 = 16;
    /// No rate limits.
    pub const UNLIMITED: u64 = 32;
    /// Pays by invoice.
    pub const INVOICE_BILLING: u64 = 256;
}

impl<T: Serialize + DeserializeOwned> Versioned<T> {
    /// The fields of the hash.
    ///
    /// # Panics
    /// Never: the entries here always serialise.
    #[must_use]
    pub fn to_fields(&self) -> [(&'static str, String); 2] {
        let entry = serde_json::to_string(&self.entry).expect("an entry serialises");
        [(VERSION_FIELD, self.version.to_string()), (ENTRY_FIELD, entry)]
    }

    /// Reads the fields of a hash; an empty map is an absent entry.
    ///
    /// # Errors
    /// When a field is missing or unreadable.
    pub fn from_fields(fields: &HashMap<String, String>) -> Result<Option<Self>, Malformed> {
        if fields.is_empty() {
            return Ok(None);
        }
        let version = fields.get(VERSION_FIELD).ok_or(Malformed::Missing(VERSION_FIELD))?;
        let entry = fields.get(ENTRY_FIELD).ok_or(Malformed::Missing(ENTRY_FIELD))?;
        Ok(Some(Self {
            version: version.parse().map_err(|_| Malformed::Version(version.clone()))?,
            entry: serde_json::from_str(entry)?,
        }))
    }
}

/// Writes an `i128` as a decimal string, which every JSON reader keeps exact.
mod decimal_text {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &i128, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i128, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests;
