//! Text form, parsing and stored hash of an API key, with the scopes that say what it allows.

use std::fmt;

use rand::Rng;
use rand::distr::Alphanumeric;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use uuid::Uuid;

use crate::ids::{ApiKeyId, UserId};

/// What every API key starts with; a bearer token without it is a session token.
pub const API_KEY_PREFIX: &str = "cpk_";
/// Characters of an identifier in a key: a UUID without dashes.
const ID_LENGTH: usize = 32;
/// Random characters of a key, 190 bits.
const SECRET_LENGTH: usize = 32;

/// A whole API key, `cpk_{key id}.{user id}.{secret}`: shown once, never printed.
#[derive(Clone)]
pub struct ApiKey {
    text: String,
    id: ApiKeyId,
    user: UserId,
}

impl ApiKey {
    /// Makes a new key of a user.
    #[must_use]
    pub fn generate(user: UserId) -> Self {
        let id = ApiKeyId::random();
        let secret: String = rand::rng().sample_iter(Alphanumeric).take(SECRET_LENGTH).map(char::from).collect();
        let text = format!("{API_KEY_PREFIX}{}.{}.{secret}", id.0.simple(), user.0.simple());
        Self { text, id, user }
    }

    /// Reads a key; identifiers are lower-case hex, as they were handed out.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix(API_KEY_PREFIX)?.split('.');
        let id = identifier(parts.next()?)?;
        let user = identifier(parts.next()?)?;
        let secret = parts.next()?;
        let whole = secret.len() == SECRET_LENGTH && secret.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if !whole || parts.next().is_some() {
            return None;
        }
        Some(Self { text: text.to_owned(), id: ApiKeyId(id), user: UserId(user) })
    }

    /// The key's identifier.
    #[must_use]
    pub fn id(&self) -> ApiKeyId {
        self.id
    }

    /// Whose key it says it is; true only once the hash matches.
    #[must_use]
    pub fn user(&self) -> UserId {
        self.user
    }

    /// The form in which it is stored.
    #[must_use]
    pub fn hash(&self) -> KeyHash {
        KeyHash(Sha256::digest(self.text.as_bytes()).into())
    }

    /// The secret text, for the one reply that shows it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.text
    }
}

/// SHA-256 of an API key's whole text; its random part needs no slow hash.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyHash(pub [u8; 32]);

impl KeyHash {
    /// Whether it is this key's hash; takes the same time for every key.
    #[must_use]
    pub fn matches(&self, key: &ApiKey) -> bool {
        bool::from(self.0.ct_eq(&key.hash().0))
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyHash({self})")
    }
}

impl Serialize for KeyHash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for KeyHash {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        let mut hash = [0; 32];
        hex::decode_to_slice(text.as_bytes(), &mut hash).map_err(serde::de::Error::custom)?;
        Ok(Self(hash))
    }
}

/// What a key may do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scopes {
    /// Everything its user may.
    Admin,
    /// Only what one of these covers.
    Listed(Vec<Scope>),
}

impl Scopes {
    /// Whether an act on an object is covered; a request about no object in particular needs a scope for all of them.
    #[must_use]
    pub fn allow(&self, object: ObjectKind, id: Option<Uuid>, action: Action) -> bool {
        match self {
            Self::Admin => true,
            Self::Listed(scopes) => scopes.iter().any(|scope| scope.covers(object, id, action)),
        }
    }
}

/// One permission; what is missing matches everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// What kind of object.
    #[serde(rename = "object_type")]
    pub object: ObjectKind,
    /// Which one; none: all.
    #[serde(rename = "object_id", default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Uuid>,
    /// Which act; none: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<Action>,
}

impl Scope {
    fn covers(&self, object: ObjectKind, id: Option<Uuid>, action: Action) -> bool {
        self.object == object
            && self.id.is_none_or(|own| id == Some(own))
            && self.action.is_none_or(|own| own == action)
    }
}

/// What a scope speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ObjectKind {
    /// Container images.
    Images,
    /// Chutes.
    Chutes,
    /// Records of calls.
    Invocations,
}

/// What a scope lets its holder do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Look.
    Read,
    /// Create or change.
    Write,
    /// Remove.
    Delete,
    /// Call.
    Invoke,
}

/// The token of an `Authorization` header: its last word, whatever scheme stands before it.
#[must_use]
pub fn authorization_token(header_value: &str) -> Option<&str> {
    header_value.split_whitespace().next_back()
}

/// A UUID of exactly 32 lower-case hex digits.
fn identifier(text: &str) -> Option<Uuid> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    if text.len() == ID_LENGTH && digits { Uuid::try_parse(text).ok() } else { None }
}

#[cfg(test)]
mod tests;
