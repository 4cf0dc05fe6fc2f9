//! Instance keys as they rest in the directory: AES-256-GCM under a key that few programs have.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

mod answers;
mod cipher;

use self::cipher::GcmNonce;
use crate::ids::InstanceId;

pub use self::answers::{AnswerDigest, AnswerKey};

/// The symmetric key between us and one instance; never printed.
#[derive(Clone)]
pub struct InstanceKey([u8; 16]);

/// The key under which instance keys rest; only control's publisher and the gateways have it, never printed.
#[derive(Clone)]
pub struct DirectoryKey([u8; 32]);

/// An instance key as it stands in the directory: base64 of nonce, ciphertext and tag.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SealedKey(pub String);

/// A text that is not hex of the right length; it does not repeat it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key is {digits} hex digits")]
pub struct InvalidKey {
    /// How many there should be.
    digits: usize,
}

/// A sealed key that is not what was sealed for this instance and version under this directory key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot open the sealed key of an instance")]
pub struct CannotOpen;

impl InstanceKey {
    /// Makes a new key.
    #[must_use]
    pub fn generate() -> Self {
        Self(rand::random())
    }

    /// Reads 32 hex digits.
    ///
    /// # Errors
    /// When the text is anything else.
    pub fn from_hex(text: &str) -> Result<Self, InvalidKey> {
        decode(text).map(Self)
    }

    /// The secret as 32 hex digits, for the one instance it belongs to.
    #[must_use]
    pub fn reveal_hex(&self) -> String {
        hex::encode(self.0)
    }

    /// The secret bytes.
    pub(crate) fn bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl From<[u8; 16]> for InstanceKey {
    fn from(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl DirectoryKey {
    /// Reads 64 hex digits.
    ///
    /// # Errors
    /// When the text is anything else.
    pub fn from_hex(text: &str) -> Result<Self, InvalidKey> {
        decode(text).map(Self)
    }

    /// Seals an instance's key, bound to the instance and to the version of its row.
    ///
    /// # Panics
    /// Never: the texts are far below the cipher's limits.
    #[must_use]
    pub fn seal(&self, key: &InstanceKey, instance: InstanceId, version: u64) -> SealedKey {
        self.seal_with_nonce(key, instance, version, rand::random())
    }

    /// Opens the key of this instance at this version.
    ///
    /// # Errors
    /// When it was sealed for another one, under another key, or changed since.
    pub fn open(&self, sealed: &SealedKey, instance: InstanceId, version: u64) -> Result<InstanceKey, CannotOpen> {
        let bytes = STANDARD.decode(&sealed.0).map_err(|_| CannotOpen)?;
        let plain = cipher::open(&self.0, bound_to(instance, version).as_bytes(), &bytes)?;
        plain.try_into().map(InstanceKey).map_err(|_| CannotOpen)
    }

    fn seal_with_nonce(&self, key: &InstanceKey, instance: InstanceId, version: u64, nonce: GcmNonce) -> SealedKey {
        SealedKey(STANDARD.encode(cipher::seal(&self.0, nonce, bound_to(instance, version).as_bytes(), &key.0)))
    }
}

/// The associated data, without which the key of one instance could be passed off as another's.
fn bound_to(instance: InstanceId, version: u64) -> String {
    format!("{instance}:{version}")
}

fn decode<const N: usize>(text: &str) -> Result<[u8; N], InvalidKey> {
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes).map_err(|_| InvalidKey { digits: 2 * N })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
