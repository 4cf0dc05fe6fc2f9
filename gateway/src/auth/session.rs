//! Checks a session token.

use protocol::session::InvalidSession;

use super::{Auth, Caller, Via};
use crate::refusal::Refusal;

impl Auth {
    pub(super) async fn identify_session(&self, token: &str) -> Result<Caller, Refusal> {
        let session = self.sessions.verify(token, self.clock.now()).map_err(|invalid| match invalid {
            InvalidSession::Malformed | InvalidSession::Signature => Refusal::InvalidCredential("invalid token"),
            InvalidSession::Expired => Refusal::ExpiredSession,
        })?;
        let user = self.user(session.user).await?;
        // A younger generation than ours is our delay, not a forgery: control signed it.
        if session.generation < user.generation {
            return Err(Refusal::InvalidCredential("the session was ended"));
        }
        Ok(Caller { user, via: Via::Session })
    }
}
