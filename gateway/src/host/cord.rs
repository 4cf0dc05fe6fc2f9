//! Which entry point of a chute a request means.

use protocol::directory::{Chute, Cord, Template};

use crate::refusal::Refusal;

/// The cord with this public path and method; an LLM chute has one that streams and one that does not.
///
/// # Errors
/// [`Refusal::UnknownCord`] when there is none.
pub fn find<'a>(chute: &'a Chute, method: &http::Method, path: &str, stream: bool) -> Result<&'a Cord, Refusal> {
    let by_stream = chute.template == Some(Template::Vllm);
    chute
        .cords
        .iter()
        .filter(|cord| cord.public_path.as_deref() == Some(path) && cord.public_method == method.as_str())
        .find(|cord| !by_stream || cord.stream == stream)
        .ok_or(Refusal::UnknownCord)
}
