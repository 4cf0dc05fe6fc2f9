//! sr25519 keys and their signatures, as Substrate uses them.

use std::fmt;

use schnorrkel::{ExpansionMode, MiniSecretKey, PublicKey};
use sha2::{Digest, Sha256};

use super::Hotkey;

/// The signing context of Substrate.
const CONTEXT: &[u8] = b"substrate";

/// A hotkey with its secret; never printed.
#[derive(Clone)]
pub struct Keypair {
    keys: schnorrkel::Keypair,
    hotkey: Hotkey,
}

/// A seed that is not 32 bytes of hex.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a seed is 64 hex digits")]
pub struct InvalidSeed;

impl Keypair {
    /// The key pair with this seed, 64 hex digits with or without `0x`.
    ///
    /// # Errors
    /// When the text is anything else; it does not repeat it.
    pub fn from_seed_hex(text: &str) -> Result<Self, InvalidSeed> {
        let mut seed = [0; 32];
        hex::decode_to_slice(without_0x(text), &mut seed).map_err(|_| InvalidSeed)?;
        Ok(Self::from_seed(seed))
    }

    /// The key pair with this seed (a "mini secret").
    ///
    /// # Panics
    /// Never: every seed is a key.
    #[must_use]
    pub fn from_seed(seed: [u8; 32]) -> Self {
        let secret = MiniSecretKey::from_bytes(&seed).expect("a mini secret is any 32 bytes");
        let keys = secret.expand_to_keypair(ExpansionMode::Ed25519);
        let hotkey = Hotkey::from_public(keys.public.to_bytes());
        Self { keys, hotkey }
    }

    /// Its address.
    #[must_use]
    pub fn hotkey(&self) -> &Hotkey {
        &self.hotkey
    }

    /// Signs a message; each signature is another one.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Signature {
        Signature(self.keys.sign_simple(CONTEXT, message).to_bytes())
    }
}

/// 64 bytes that claim to be an sr25519 signature; written as lower-case hex.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature([u8; 64]);

/// A text that is not 64 bytes of hex.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a signature is 128 hex digits")]
pub struct InvalidSignature;

impl Signature {
    /// Reads 128 hex digits with or without `0x`.
    ///
    /// # Errors
    /// When the text is anything else.
    pub fn parse(text: &str) -> Result<Self, InvalidSignature> {
        let mut bytes = [0; 64];
        hex::decode_to_slice(without_0x(text), &mut bytes).map_err(|_| InvalidSignature)?;
        Ok(Self(bytes))
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// What a signature is remembered by, so that it is good once: hex SHA-256 of the public key and the signature.
///
/// One signature has one digest however it is written: [`verify`] takes only one encoding of a point and of a scalar,
/// and refuses a missing mark in the last bit.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SignatureDigest(String);

impl SignatureDigest {
    /// The digest of a signature by this hotkey.
    #[must_use]
    pub fn new(hotkey: &Hotkey, signature: &Signature) -> Self {
        let hash = Sha256::new().chain_update(hotkey.public()).chain_update(signature.0).finalize();
        Self(hex::encode(hash))
    }
}

impl fmt::Display for SignatureDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether this hotkey signed this message.
///
/// The neutral point is refused as a key: its "signatures" can be made by everybody, and its address stands for
/// "nobody" on the chain.
#[must_use]
pub fn verify(hotkey: &Hotkey, message: &[u8], signature: &Signature) -> bool {
    let public = hotkey.public();
    let (Ok(key), Ok(signature)) = (PublicKey::from_bytes(&public), schnorrkel::Signature::from_bytes(&signature.0))
    else {
        return false;
    };
    public != [0; 32] && key.verify_simple(CONTEXT, message, &signature).is_ok()
}

fn without_0x(text: &str) -> &str {
    text.strip_prefix("0x").unwrap_or(text)
}
