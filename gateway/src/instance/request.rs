//! Seals and signs one attempt for the instance it goes to.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST};
use pingora::http::RequestHeader;
use protocol::directory::Cord;
use protocol::envelope::{EnvelopeError, Opener, seal_request};
use protocol::headers;
use protocol::signing::{Covers, Keypair, outward_headers};

use crate::directory::Target;

/// A request for one instance.
pub struct Outgoing {
    /// Its head.
    pub head: Box<RequestHeader>,
    /// Its sealed body.
    pub body: Bytes,
    /// Opens the answer.
    pub opener: Opener,
}

/// Why there is no request to send.
#[derive(Debug, thiserror::Error)]
pub enum Unsendable {
    /// The body cannot be sealed.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// The head cannot be written.
    #[error("request head cannot be written")]
    Head(#[from] Box<pingora::Error>),
}

/// Makes the request for one attempt: sealed for the instance alone, signed with a nonce of now.
///
/// # Errors
/// When the body is no JSON where it has to be read, or the instance's address makes no valid head.
pub fn outgoing(
    target: &Target,
    cord: &Cord,
    body: &[u8],
    query: &[(String, String)],
    signer: &Keypair,
    now_unix: i64,
) -> Result<Outgoing, Unsendable> {
    let instance = &target.instance;
    let sealed = seal_request(instance.generation, &target.key, &cord.path, body, cord.passthrough, query)?;
    let mut head = Box::new(RequestHeader::build("POST", sealed.path.as_bytes(), Some(8))?);
    head.insert_header(HOST, format!("{}:{}", instance.host, instance.port))?;
    head.insert_header(CONTENT_TYPE, "text/plain; charset=utf-8")?;
    head.insert_header(CONTENT_LENGTH, sealed.body.len())?;
    for (name, value) in outward_headers(&instance.hotkey, signer, now_unix, Covers::Body(&sealed.body)) {
        head.insert_header(name, value)?;
    }
    if sealed.serialized {
        head.insert_header(headers::SERIALIZED, "true")?;
    }
    Ok(Outgoing { head, body: sealed.body, opener: sealed.opener })
}
