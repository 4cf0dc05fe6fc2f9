//! Checks a hotkey's signature, which is good once.

use protocol::keys::Key;
use protocol::signing::{Covers, INWARD_WINDOW, SignatureDigest, SignatureError, Signed, verify_inward};

use super::{Auth, Caller, Via};
use crate::refusal::Refusal;

/// How long a consumed signature is remembered: longer than its nonce can count as recent on any clock we accept.
const REMEMBERED_SECONDS: i64 = 2 * INWARD_WINDOW;

impl Auth {
    pub(super) async fn identify_hotkey(
        &self,
        hotkey: &str,
        nonce: &str,
        signature: &str,
        covers: Covers<'_>,
    ) -> Result<Caller, Refusal> {
        let signed = Signed { hotkey, nonce, signature };
        // 42 µs in a release build: less than handing it to another thread is worth.
        let authenticated = verify_inward(&signed, covers, self.clock.now().timestamp()).map_err(|error| {
            Refusal::InvalidCredential(match error {
                SignatureError::Hotkey => "the hotkey is no address",
                SignatureError::Nonce => "the nonce is not a recent time",
                SignatureError::Signature => "the signature does not fit",
            })
        })?;
        let entry = self.principals.hotkey(authenticated.hotkey()).await?;
        let user =
            entry.and_then(|entry| entry.user).ok_or(Refusal::InvalidCredential("no account has this hotkey"))?;
        let user = self.user(user).await?;
        self.consume(authenticated.digest()).await?;
        Ok(Caller { user, via: Via::Hotkey(authenticated.into_hotkey()) })
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
