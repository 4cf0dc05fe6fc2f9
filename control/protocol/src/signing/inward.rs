//! Requests that users and miners sign for us.

use super::{Covers, Hotkey, Signature, SignatureDigest, SignatureError, nonce_is_fresh, verify};

/// How far an inward nonce may be from now, in seconds.
pub const INWARD_WINDOW: i64 = 600;

/// The three headers of a signed request, as they came.
#[derive(Clone, Copy, Debug)]
pub struct Signed<'a> {
    /// `X-Chutes-Hotkey`.
    pub hotkey: &'a str,
    /// `X-Chutes-Nonce`.
    pub nonce: &'a str,
    /// `X-Chutes-Signature`.
    pub signature: &'a str,
}

/// A hotkey that proved itself; [`verify_inward`] alone makes one.
///
/// The proof holds once: the program that answers consumes the digest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authenticated {
    hotkey: Hotkey,
    digest: SignatureDigest,
}

impl Authenticated {
    /// Who signed.
    #[must_use]
    pub fn hotkey(&self) -> &Hotkey {
        &self.hotkey
    }

    /// Who signed, without the proof.
    #[must_use]
    pub fn into_hotkey(self) -> Hotkey {
        self.hotkey
    }

    /// What to consume.
    #[must_use]
    pub fn digest(&self) -> &SignatureDigest {
        &self.digest
    }
}

/// The text that a user or miner signs: `{hotkey}:{nonce}:{hex SHA-256 of the body, or purpose}`.
#[must_use]
pub fn inward_message(hotkey: &Hotkey, nonce: &str, covers: Covers<'_>) -> String {
    format!("{hotkey}:{nonce}:{}", covers.field())
}

/// Whom a signed request names, if its time and its form are right. It proves nothing: the body is not known yet.
///
/// # Errors
/// When the time, the form of the signature or the address is wrong.
pub fn named_hotkey(signed: &Signed<'_>, now_unix: i64) -> Result<Hotkey, SignatureError> {
    parts(signed, now_unix).map(|(hotkey, _)| hotkey)
}

/// Checks a signed request, cheapest test first.
///
/// # Errors
/// When the address, the time or the signature is wrong.
pub fn verify_inward(signed: &Signed<'_>, covers: Covers<'_>, now_unix: i64) -> Result<Authenticated, SignatureError> {
    let (hotkey, signature) = parts(signed, now_unix)?;
    let message = inward_message(&hotkey, signed.nonce, covers);
    if !verify(&hotkey, message.as_bytes(), &signature) {
        return Err(SignatureError::Signature);
    }
    let digest = SignatureDigest::new(&hotkey, &signature);
    Ok(Authenticated { hotkey, digest })
}

fn parts(signed: &Signed<'_>, now_unix: i64) -> Result<(Hotkey, Signature), SignatureError> {
    if !nonce_is_fresh(signed.nonce, now_unix, INWARD_WINDOW) {
        return Err(SignatureError::Nonce);
    }
    let signature = Signature::parse(signed.signature).map_err(|_| SignatureError::Signature)?;
    let hotkey = Hotkey::parse(signed.hotkey).map_err(|_| SignatureError::Hotkey)?;
    Ok((hotkey, signature))
}
