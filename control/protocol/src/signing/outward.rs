//! Requests that the validator signs for instances and miners.

use super::{Covers, Hotkey, Keypair, Signature, SignatureError, nonce_is_fresh, verify};
use crate::headers;

/// The four headers of a validator's request, as they came.
#[derive(Clone, Copy, Debug)]
pub struct OutwardSigned<'a> {
    /// `X-Chutes-Miner`.
    pub miner: &'a str,
    /// `X-Chutes-Validator`.
    pub validator: &'a str,
    /// `X-Chutes-Nonce`.
    pub nonce: &'a str,
    /// `X-Chutes-Signature`.
    pub signature: &'a str,
}

/// The text that the validator signs: `{miner}:{validator}:{nonce}:{hex SHA-256 of the body, or purpose}`.
#[must_use]
pub fn outward_message(miner: &Hotkey, validator: &Hotkey, nonce: i64, covers: Covers<'_>) -> String {
    format!("{miner}:{validator}:{nonce}:{}", covers.field())
}

/// The headers that sign a request to an instance or a miner.
#[must_use]
pub fn outward_headers(
    miner: &Hotkey,
    keypair: &Keypair,
    now_unix: i64,
    covers: Covers<'_>,
) -> [(&'static str, String); 4] {
    let message = outward_message(miner, keypair.hotkey(), now_unix, covers);
    [
        (headers::MINER, miner.to_string()),
        (headers::VALIDATOR, keypair.hotkey().to_string()),
        (headers::NONCE, now_unix.to_string()),
        (headers::SIGNATURE, keypair.sign(message.as_bytes()).to_string()),
    ]
}

/// Checks a validator's request as the miner with these two addresses; the SDK's window is 30 s.
///
/// # Errors
/// When an address is not the expected one, or the time or the signature is wrong.
pub fn verify_outward(
    signed: &OutwardSigned<'_>,
    miner: &Hotkey,
    validator: &Hotkey,
    covers: Covers<'_>,
    now_unix: i64,
    window_secs: i64,
) -> Result<(), SignatureError> {
    if signed.miner != miner.as_str() || signed.validator != validator.as_str() {
        return Err(SignatureError::Hotkey);
    }
    if !nonce_is_fresh(signed.nonce, now_unix, window_secs) {
        return Err(SignatureError::Nonce);
    }
    let nonce: i64 = signed.nonce.parse().map_err(|_| SignatureError::Nonce)?;
    let signature = Signature::parse(signed.signature).map_err(|_| SignatureError::Signature)?;
    let message = outward_message(miner, validator, nonce, covers);
    if verify(validator, message.as_bytes(), &signature) { Ok(()) } else { Err(SignatureError::Signature) }
}
