//! The instance's side of the envelope of SDK 0.3, for the stand-in miner of the tests.

use bytes::Bytes;
use serde_json::json;

use super::EnvelopeError;
use super::cipher::{self, Iv};
use super::sdk03::PATH_FILLER;
use crate::sealing::InstanceKey;

/// A request as the instance sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenedRequest {
    /// The cord's path.
    pub path: String,
    /// The client's JSON, or `{"args":…,"kwargs":…}` if the header says so.
    pub body: Bytes,
    /// The IV that the answer uses again.
    pub iv: Iv,
}

/// Opens a request from its path, with or without the leading slash, and its body.
///
/// # Errors
/// When either was not sealed under this key.
pub fn open_request(key: &InstanceKey, path_segment: &str, body: &[u8]) -> Result<OpenedRequest, EnvelopeError> {
    let segment = path_segment.strip_prefix('/').unwrap_or(path_segment);
    let (path_iv, sealed) = cipher::split_iv(segment.as_bytes())?;
    let path = cipher::decrypt(key, &path_iv, hex::decode(sealed).map_err(|_| EnvelopeError::Encoding)?)?;
    let path = std::str::from_utf8(&path).map_err(|_| EnvelopeError::Cipher)?;
    let (iv, sealed) = cipher::split_iv(body)?;
    Ok(OpenedRequest {
        path: path.trim_end_matches(PATH_FILLER).to_owned(),
        body: cipher::decrypt_base64(key, &iv, sealed)?,
        iv,
    })
}

/// One piece of a stream as a line, with its line end.
#[must_use]
pub fn seal_line(key: &InstanceKey, iv: &Iv, piece: &[u8]) -> String {
    cipher::encrypt_base64(key, iv, piece) + "\n"
}

/// The whole answer of a cord that gives JSON.
#[must_use]
pub fn seal_json_reply(key: &InstanceKey, iv: &Iv, json: &[u8]) -> String {
    json!({ "json": cipher::encrypt_base64(key, iv, json) }).to_string()
}

/// The whole answer of a cord that gives something else.
#[must_use]
pub fn seal_typed_reply(key: &InstanceKey, iv: &Iv, status: u16, media_type: &str, body: &[u8]) -> String {
    json!({
        "type": "Response",
        "status_code": status,
        "headers": { "content-length": body.len().to_string(), "content-type": media_type },
        "media_type": media_type,
        "body": cipher::encrypt_base64(key, iv, body),
    })
    .to_string()
}
