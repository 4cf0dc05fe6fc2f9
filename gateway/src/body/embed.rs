//! Bodies of embedding chutes.

use protocol::directory::{Chute, Cord};
use protocol::usage::Kind;

use super::prompt::TextBytes;
use super::{Head, Prepared, typed};
use crate::refusal::Refusal;

/// Checks `model` and `input`, and gives the engine the name it knows its model by.
pub(super) fn prepare(head: Head<'_>, chute: &Chute, cord: &Cord) -> Result<Prepared, Refusal> {
    let Head { mut fields, model, .. } = head;
    if model.is_none() {
        return Err(Refusal::BadRequest("model is required".into()));
    }
    let what = "a string or a list of strings or tokens";
    let input: TextBytes =
        typed(&fields, "input", what)?.ok_or_else(|| Refusal::BadRequest("input is required".into()))?;
    let first = fields.get("input").and_then(|value| value.get().bytes().next());
    if !matches!(first, Some(b'"' | b'[')) {
        return Err(Refusal::BadRequest(format!("input must be {what}")));
    }
    fields.set("model", &chute.name);
    Ok(Prepared {
        body: fields.to_json().into(),
        stream: cord.stream,
        hide_usage: false,
        prompt_estimate: input.tokens(),
        steps: 0,
        kind: Kind::Time,
    })
}
