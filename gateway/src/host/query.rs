//! Reads the query of a request into the parameters an engine is given.

use crate::refusal::Refusal;

/// Parameters a query may have.
const MOST_PARAMETERS: usize = 256;

/// The parameters of a query in their order; of one given twice the last counts.
///
/// # Errors
/// [`Refusal::BadRequest`] when it is not URL-encoded UTF-8 or has too many parameters.
pub fn parameters(query: &str) -> Result<Vec<(String, String)>, Refusal> {
    let mut parameters: Vec<(String, String)> = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (decode(name)?, decode(value)?);
        match parameters.iter_mut().find(|(known, _)| *known == name) {
            Some((_, held)) => *held = value,
            None => parameters.push((name, value)),
        }
        if parameters.len() > MOST_PARAMETERS {
            return Err(Refusal::BadRequest(format!("more than {MOST_PARAMETERS} query parameters")));
        }
    }
    Ok(parameters)
}

/// Whether the query asks for a stream, where there is no body to ask with.
#[must_use]
pub fn asks_for_stream(parameters: &[(String, String)]) -> bool {
    parameters.iter().any(|(name, value)| name == "stream" && matches!(value.as_str(), "true" | "True" | "1"))
}

/// Undoes `+` and `%XX`; a `%` without two hex digits stands for itself.
fn decode(text: &str) -> Result<String, Refusal> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let escaped = after.get(..2).filter(|_| first == b'%').and_then(|digits| hex::decode(digits).ok());
        match escaped {
            Some(byte) => {
                bytes.extend(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(if first == b'+' { b' ' } else { first });
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).map_err(|_| Refusal::BadRequest("the query is not UTF-8".into()))
}
