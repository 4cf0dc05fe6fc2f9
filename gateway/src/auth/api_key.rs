//! Checks an API key.

use protocol::credential::ApiKey;

use super::{Auth, Caller, Via};
use crate::refusal::Refusal;

impl Auth {
    pub(super) async fn identify_key(&self, key: &ApiKey) -> Result<Caller, Refusal> {
        let entry = self.principals.key(key.id()).await?;
        // One answer for an unknown identifier and for a wrong secret: it is nobody's business which keys there are.
        let entry =
            entry.filter(|entry| entry.hash.matches(key)).ok_or(Refusal::InvalidCredential("unknown API key"))?;
        if entry.revoked {
            return Err(Refusal::InvalidCredential("the API key was revoked"));
        }
        let user = self.user(entry.user).await?;
        Ok(Caller { user, via: Via::Key { id: entry.id, scopes: entry.scopes.clone() } })
    }
}
