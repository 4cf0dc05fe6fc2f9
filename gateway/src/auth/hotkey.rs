//! Checks a hotkey's signature, which is good once.

use std::sync::Arc;

use protocol::keys::Key;
use protocol::principal::UserEntry;
use protocol::signing::{
    Covers, Hotkey, INWARD_WINDOW, SignatureDigest, SignatureError, Signed, named_hotkey, verify_inward,
};

use super::{Auth, Caller, Via};
use crate::refusal::Refusal;

/// How long a consumed signature is remembered: longer than its nonce can count as recent on any clock we accept.
const REMEMBERED_SECONDS: i64 = 2 * INWARD_WINDOW;

impl Auth {
    /// Refuses a signature that cannot be right, whatever it covers.
    pub(super) async fn screen_hotkey(&self, signed: &Signed<'_>) -> Result<(), Refusal> {
        let named = named_hotkey(signed, self.clock.now().timestamp()).map_err(refusal)?;
        self.user_of(&named).await.map(drop)
    }

    pub(super) async fn identify_hotkey(&self, signed: &Signed<'_>, covers: Covers<'_>) -> Result<Caller, Refusal> {
        // 42 µs in a release build: less than handing it to another thread is worth.
        let authenticated = verify_inward(signed, covers, self.clock.now().timestamp()).map_err(refusal)?;
        let user = self.user_of(authenticated.hotkey()).await?;
        self.consume(authenticated.digest()).await?;
        Ok(Caller { user, via: Via::Hotkey(authenticated.into_hotkey()) })
    }

    async fn user_of(&self, hotkey: &Hotkey) -> Result<Arc<UserEntry>, Refusal> {
        let entry = self.principals.hotkey(hotkey).await?;
        let user =
            entry.and_then(|entry| entry.user).ok_or(Refusal::InvalidCredential("no account has this hotkey"))?;
        self.user(user).await
    }

    /// Spends a signature, for all gateways at once. Redis is the only memory of it: one that loses its data would
    /// let a captured signature pass once more until its nonce is too old.
    async fn consume(&self, digest: &SignatureDigest) -> Result<(), Refusal> {
        let mut connection = self.principals.connection()?;
        let mut set = redis::cmd("SET");
        set.arg(Key::signature(digest).as_str()).arg(1).arg("NX").arg("EX").arg(REMEMBERED_SECONDS);
        // An answer that does not arrive leaves open whether it was spent; the client signs anew.
        let spent: Option<String> = set.query_async(&mut connection).await.map_err(|error| {
            tracing::warn!(%error, "cannot consume a signature");
            Refusal::NotReady("signatures cannot be checked at the moment")
        })?;
        spent.map(|_| ()).ok_or(Refusal::ReplayedSignature)
    }
}

fn refusal(error: SignatureError) -> Refusal {
    Refusal::InvalidCredential(match error {
        SignatureError::Hotkey => "the hotkey is no address",
        SignatureError::Nonce => "the nonce is not a recent time",
        SignatureError::Signature => "the signature does not fit",
    })
}
