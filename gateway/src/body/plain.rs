//! Bodies of chutes that no façade knows: any JSON goes on as it is.

use bytes::Bytes;
use protocol::directory::Cord;
use protocol::usage::Kind;
use serde_json::value::RawValue;

use super::{Prepared, not_json};
use crate::refusal::Refusal;

/// Checks that the body is JSON, or absent.
pub(super) fn check(raw: &[u8]) -> Result<(), Refusal> {
    if raw.is_empty() {
        return Ok(());
    }
    serde_json::from_slice::<&RawValue>(raw).map(drop).map_err(|error| not_json(&error))
}

/// The body as it came; an empty object where none came.
pub(super) fn prepare(raw: &[u8], cord: &Cord) -> Prepared {
    let body = if raw.is_empty() { Bytes::from_static(b"{}") } else { Bytes::copy_from_slice(raw) };
    Prepared { body, stream: cord.stream, hide_usage: false, prompt_estimate: 0, steps: 0, kind: Kind::Time }
}
