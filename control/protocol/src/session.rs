//! The user session token: a JWT that control signs with Ed25519.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use crate::ids::UserId;

/// PKCS#8 header of an Ed25519 private key (RFC 8410); the seed follows.
const PKCS8_HEADER: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

/// Makes session tokens; only control has one.
pub struct SessionSigner {
    key: EncodingKey,
    public: [u8; 32],
}

/// Checks session tokens; a public key is enough.
#[derive(Clone)]
pub struct SessionVerifier {
    key: DecodingKey,
    validation: Validation,
}

/// What a valid token says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// Whose session it is.
    pub user: UserId,
    /// The user's generation when it began; an older one than the user's own has ended.
    pub generation: u32,
    /// The first moment at which it is refused.
    pub expires_at: DateTime<Utc>,
}

/// Why a token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSession {
    /// It is no token of this kind, or names another algorithm than EdDSA.
    #[error("malformed session token")]
    Malformed,
    /// It was not signed by our control plane.
    #[error("wrong signature of a session token")]
    Signature,
    /// Its time is over.
    #[error("session expired")]
    Expired,
}

/// The claims on the wire.
#[derive(Serialize, Deserialize)]
struct Claims {
    sub: UserId,
    #[serde(rename = "gen")]
    generation: u32,
    iat: i64,
    exp: i64,
}

impl SessionSigner {
    /// The signer with this Ed25519 seed.
    ///
    /// # Panics
    /// Never: every seed is a key.
    #[must_use]
    pub fn from_seed(seed: [u8; 32]) -> Self {
        let key = EncodingKey::from_ed_der(&[PKCS8_HEADER.as_slice(), seed.as_slice()].concat());
        let public = public_key(&key).expect("every 32 bytes are an Ed25519 seed");
        Self { key, public }
    }

    /// The key by which the tokens are verified.
    #[must_use]
    pub fn public_key(&self) -> [u8; 32] {
        self.public
    }

    /// Makes a token of a user that is refused once `lifetime` has passed; times are whole seconds.
    ///
    /// # Panics
    /// Never: the key was tried when the signer was made.
    #[must_use]
    pub fn sign(&self, user: UserId, generation: u32, now: DateTime<Utc>, lifetime: Duration) -> String {
        let iat = now.timestamp();
        let exp = iat.saturating_add(i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX));
        let claims = Claims { sub: user, generation, iat, exp };
        jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), &claims, &self.key)
            .expect("a valid key signs plain claims")
    }
}

impl SessionVerifier {
    /// The verifier for this Ed25519 public key; bytes that are no key refuse every token.
    #[must_use]
    pub fn new(public_key: [u8; 32]) -> Self {
        let mut validation = Validation::new(Algorithm::EdDSA);
        // The library reads the system's clock; the expiry is checked against the caller's in `verify`.
        validation.validate_exp = false;
        validation.required_spec_claims.clear();
        Self { key: DecodingKey::from_ed_der(&public_key), validation }
    }

    /// Reads a token.
    ///
    /// # Errors
    /// When it is not a token, not ours, or too old.
    pub fn verify(&self, token: &str, now: DateTime<Utc>) -> Result<Session, InvalidSession> {
        let data = jsonwebtoken::decode::<Claims>(token, &self.key, &self.validation);
        let claims = data.map_err(|error| reason(error.kind()))?.claims;
        let expires_at = DateTime::from_timestamp(claims.exp, 0).ok_or(InvalidSession::Malformed)?;
        if now >= expires_at {
            return Err(InvalidSession::Expired);
        }
        Ok(Session { user: claims.sub, generation: claims.generation, expires_at })
    }
}

/// The library says much more than a caller may know.
fn reason(kind: &ErrorKind) -> InvalidSession {
    match kind {
        ErrorKind::InvalidSignature | ErrorKind::InvalidEddsaKey => InvalidSession::Signature,
        _ => InvalidSession::Malformed,
    }
}

/// The public half of an Ed25519 key.
fn public_key(key: &EncodingKey) -> Option<[u8; 32]> {
    match Jwk::from_encoding_key(key, Algorithm::EdDSA).ok()?.algorithm {
        AlgorithmParameters::OctetKeyPair(pair) => URL_SAFE_NO_PAD.decode(pair.x).ok()?.try_into().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
