//! Says who is calling.

mod api_key;
mod hotkey;
mod session;

use std::sync::Arc;

use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderName};
use protocol::credential::{API_KEY_PREFIX, Action, ApiKey, ObjectKind, Scopes, authorization_token};
use protocol::headers;
use protocol::ids::{ApiKeyId, ChuteId, UserId};
use protocol::principal::UserEntry;
use protocol::session::SessionVerifier;
use protocol::signing::{Covers, Hotkey, Signed};

use crate::clock::Clock;
use crate::principals::Principals;
use crate::refusal::Refusal;

/// Longest credential that is looked at.
const MAX_CREDENTIAL: usize = 4096;

/// The credential of a request, not yet checked.
pub enum Presented {
    /// None at all.
    None,
    /// An API key.
    Key(ApiKey),
    /// A session token.
    Session(String),
    /// A hotkey's signature.
    Signed {
        /// `X-Chutes-Hotkey`.
        hotkey: String,
        /// `X-Chutes-Nonce`.
        nonce: String,
        /// `X-Chutes-Signature`.
        signature: String,
    },
}

/// Who calls; [`Auth::identify`] alone makes one.
pub struct Caller {
    /// The user.
    pub user: Arc<UserEntry>,
    /// By which credential.
    pub via: Via,
}

/// The credential that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Via {
    /// An API key, which may be confined to some chutes.
    Key {
        /// The key's identifier.
        id: ApiKeyId,
        /// What it may do.
        scopes: Scopes,
    },
    /// A session.
    Session,
    /// A signature of this hotkey.
    Hotkey(Hotkey),
}

/// Checks credentials against the principals.
pub struct Auth {
    principals: Arc<Principals>,
    sessions: SessionVerifier,
    clock: Clock,
}

impl Presented {
    /// Reads the credential of a request: a signature where both of its headers are there, else `Authorization`.
    ///
    /// # Errors
    /// When there is one that cannot be one.
    pub fn read(headers: &HeaderMap) -> Result<Self, Refusal> {
        let hotkey = single(headers, &HeaderName::from_static(headers::HOTKEY))?;
        let signature = single(headers, &HeaderName::from_static(headers::SIGNATURE))?;
        if let (Some(hotkey), Some(signature)) = (hotkey, signature) {
            let nonce = single(headers, &HeaderName::from_static(headers::NONCE))?;
            let nonce = nonce.ok_or(Refusal::InvalidCredential("a signature needs a nonce"))?.to_owned();
            return Ok(Self::Signed { hotkey: hotkey.to_owned(), nonce, signature: signature.to_owned() });
        }
        let Some(token) = single(headers, &AUTHORIZATION)?.and_then(authorization_token) else {
            return Ok(Self::None);
        };
        if token.starts_with(API_KEY_PREFIX) {
            return ApiKey::parse(token).map(Self::Key).ok_or(Refusal::InvalidCredential("malformed API key"));
        }
        Ok(Self::Session(token.to_owned()))
    }
}

impl Caller {
    /// Whether the credential covers a call of this chute.
    #[must_use]
    pub fn may_invoke(&self, chute: ChuteId) -> bool {
        match &self.via {
            Via::Key { scopes, .. } => scopes.allow(ObjectKind::Chutes, Some(chute.0), Action::Invoke),
            Via::Session | Via::Hotkey(_) => true,
        }
    }
}

impl Auth {
    /// Checks against these principals.
    #[must_use]
    pub fn new(principals: Arc<Principals>, sessions: SessionVerifier, clock: Clock) -> Self {
        Self { principals, sessions, clock }
    }

    /// Refuses what cannot be right before a body is read for it. Whoever passes has not proven anything: everybody can
    /// name a hotkey, so nothing may be counted against its user yet.
    ///
    /// # Errors
    /// When a signature is too old, is none, or names nobody we know, or when that cannot be known at the moment.
    pub async fn screen(&self, presented: &Presented) -> Result<(), Refusal> {
        match presented {
            Presented::Signed { hotkey, nonce, signature } => {
                self.screen_hotkey(&Signed { hotkey, nonce, signature }).await
            }
            Presented::None | Presented::Key(_) | Presented::Session(_) => Ok(()),
        }
    }

    /// Says who presented the credential. A signature is consumed here: it is good once, and only a valid one of a
    /// known user is spent.
    ///
    /// # Errors
    /// When it is missing, wrong, withdrawn or used before, or when that cannot be known at the moment.
    pub async fn identify(&self, presented: Presented, covers: Covers<'_>) -> Result<Caller, Refusal> {
        match presented {
            Presented::None => Err(Refusal::Unauthenticated),
            Presented::Key(key) => self.identify_key(&key).await,
            Presented::Session(token) => self.identify_session(&token).await,
            Presented::Signed { hotkey, nonce, signature } => {
                let signed = Signed { hotkey: &hotkey, nonce: &nonce, signature: &signature };
                self.identify_hotkey(&signed, covers).await
            }
        }
    }

    /// The user behind a credential that is right.
    async fn user(&self, id: UserId) -> Result<Arc<UserEntry>, Refusal> {
        let user = self.principals.user(id).await?;
        user.filter(|user| !user.deleted).ok_or(Refusal::InvalidCredential("the account does not exist"))
    }
}

/// The value of a header that may stand once.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Refusal::InvalidCredential("a credential header stands twice"));
    }
    if value.len() > MAX_CREDENTIAL {
        return Err(Refusal::InvalidCredential("a credential is too long"));
    }
    value.to_str().map(Some).map_err(|_| Refusal::InvalidCredential("a credential is not text"))
}

#[cfg(test)]
mod tests;
