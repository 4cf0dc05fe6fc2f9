//! Messages that hotkeys sign, in both directions, with the addresses and keys they need.

mod hotkey;
mod inward;
mod keypair;
mod outward;

pub use hotkey::{Hotkey, InvalidHotkey};
pub use inward::{Authenticated, INWARD_WINDOW, Signed, inward_message, named_hotkey, verify_inward};
pub use keypair::{InvalidSeed, InvalidSignature, Keypair, Signature, SignatureDigest, verify};
pub use outward::{OutwardSigned, outward_headers, outward_message, verify_outward};

use sha2::{Digest, Sha256};

/// What a signed message vouches for besides its sender and its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Covers<'a> {
    /// The exact bytes of the body.
    Body(&'a [u8]),
    /// A route's purpose, where there is no body to cover.
    Purpose(&'a str),
}

/// Why a signed request is refused; what the client reads is the caller's choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The hotkey is no address, or not the expected one.
    #[error("invalid hotkey")]
    Hotkey,
    /// The nonce is no time, or not a recent one.
    #[error("stale nonce")]
    Nonce,
    /// The signature is unreadable or does not fit.
    #[error("invalid signature")]
    Signature,
}

/// Whether a nonce (Unix seconds, digits only) is less than `window_secs` away from now, to either side.
#[must_use]
pub fn nonce_is_fresh(nonce: &str, now_unix: i64, window_secs: i64) -> bool {
    let digits = !nonce.is_empty() && nonce.bytes().all(|byte| byte.is_ascii_digit());
    let window = u64::try_from(window_secs).unwrap_or(0);
    digits && nonce.parse::<i64>().is_ok_and(|nonce| now_unix.abs_diff(nonce) < window)
}

impl Covers<'_> {
    /// The last field of a message: the purpose, or the hex SHA-256 of the body.
    fn field(&self) -> String {
        match self {
            Self::Body(body) => hex::encode(Sha256::digest(body)),
            Self::Purpose(purpose) => (*purpose).to_owned(),
        }
    }
}

#[cfg(test)]
mod tests;
