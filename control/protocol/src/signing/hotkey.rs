//! The SS58 address of an sr25519 key.

use std::fmt;

use blake2::{Blake2b512, Digest};
use serde::{Deserialize, Serialize};

/// Network prefix of generic Substrate addresses, which subtensor uses.
const NETWORK: u8 = 42;
/// Prefix byte, public key, checksum.
const DECODED_LENGTH: usize = 1 + 32 + 2;

/// Address of a key that signs: SS58 with network prefix 42 and a right checksum.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hotkey(String);

/// A text that is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an SS58 address of network 42")]
pub struct InvalidHotkey;

impl Hotkey {
    /// Reads an address.
    ///
    /// # Errors
    /// When it is not base58, of another length or network, or its checksum is wrong.
    pub fn parse(text: &str) -> Result<Self, InvalidHotkey> {
        // No second text decodes to the same bytes: only zeros in front could be written in more than one way.
        decode(text).map(|_| Self(text.to_owned())).ok_or(InvalidHotkey)
    }

    /// The address of a public key.
    #[must_use]
    pub fn from_public(public: [u8; 32]) -> Self {
        let mut decoded = [0; DECODED_LENGTH];
        decoded[0] = NETWORK;
        decoded[1..33].copy_from_slice(&public);
        decoded[33..].copy_from_slice(&checksum(&public));
        Self(bs58::encode(decoded).into_string())
    }

    /// The public key; not every address has one that can sign.
    ///
    /// # Panics
    /// Never: the address was decoded when it was made.
    #[must_use]
    pub fn public(&self) -> [u8; 32] {
        decode(&self.0).expect("a hotkey is a valid address")
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Hotkey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for Hotkey {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for Hotkey {
    type Err = InvalidHotkey;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl TryFrom<String> for Hotkey {
    type Error = InvalidHotkey;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<Hotkey> for String {
    fn from(hotkey: Hotkey) -> Self {
        hotkey.0
    }
}

/// The key inside an address. The small buffer bounds the work that a long text can cause.
fn decode(text: &str) -> Option<[u8; 32]> {
    let mut decoded = [0; DECODED_LENGTH];
    let length = bs58::decode(text).onto(&mut decoded).ok()?;
    let public: [u8; 32] = decoded[1..33].try_into().ok()?;
    let valid = length == DECODED_LENGTH && decoded[0] == NETWORK && decoded[33..] == checksum(&public);
    valid.then_some(public)
}

/// The first two bytes of BLAKE2b-512 over a fixed prefix, the network and the key.
fn checksum(public: &[u8; 32]) -> [u8; 2] {
    let hash = Blake2b512::new().chain_update(b"SS58PRE").chain_update([NETWORK]).chain_update(public).finalize();
    [hash[0], hash[1]]
}
