//! Refuses request heads that two readers could understand differently.

use http::HeaderMap;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use pingora::http::authority::{RawTargetAuthority, raw_target_authority};
use pingora::http::{Method, RequestHeader};
use pingora::{Error, ErrorType};

use crate::refusal::Refusal;

/// What is wrong with a head, in words for the client.
pub type Unclear = &'static str;

/// Checks what the framework lets through, but for the host, which `host` reads. `raw` is the head as it came, for
/// HTTP/1 only.
///
/// # Errors
/// Says what is wrong; the connection must not be used again.
pub fn check(request: &RequestHeader, raw: Option<&[u8]>) -> Result<(), Unclear> {
    if let Some(raw) = raw {
        check_bytes(raw)?;
    }
    check_lengths(&request.headers, raw)?;
    let target = request.raw_path();
    if target.iter().any(|byte| *byte <= b' ' || *byte == 0x7f) || !request.raw_path_is_utf8() {
        return Err("control bytes in the target, or bytes that are no text");
    }
    if !target.starts_with(b"/") && !is_url(request) {
        return Err("the target is neither a path nor a URL");
    }
    Ok(())
}

/// The length of the body, if the head says one.
#[must_use]
pub fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Whether the target is a whole URL. The framework has compared its name with `Host`, byte for byte.
fn is_url(request: &RequestHeader) -> bool {
    let target = raw_target_authority(request.raw_path());
    let RawTargetAuthority::Absolute { scheme, .. } = target else { return false };
    let web = scheme.eq_ignore_ascii_case(b"http") || scheme.eq_ignore_ascii_case(b"https");
    web && request.method != Method::CONNECT
}

/// What the client is told when the framework cannot read on; none if there is nobody left to tell.
#[must_use]
pub fn refusal(error: &Error) -> Option<Refusal> {
    match error.etype() {
        ErrorType::InvalidHTTPHeader => Some(Refusal::BadRequest("the head is not a clear one".into())),
        ErrorType::ReadTimedout => Some(Refusal::BodyTimeout),
        other if matches!(other.as_str(), "InvalidChunk" | "InvalidTrailerEnd") => {
            Some(Refusal::BadRequest("the chunks of the body are malformed".into()))
        }
        _ => None,
    }
}

/// Line ends are CRLF, and no other control byte but the tab stands in a head.
fn check_bytes(raw: &[u8]) -> Result<(), Unclear> {
    let mut before = 0;
    for byte in raw {
        match byte {
            b'\n' if before != b'\r' => return Err("a line ends without a carriage return"),
            b'\n' | b'\r' | b'\t' => {}
            0..=31 | 127 => return Err("control bytes in the head"),
            _ => {}
        }
        if before == b'\r' && *byte != b'\n' {
            return Err("a carriage return within a line");
        }
        before = *byte;
    }
    Ok(())
}

/// One length, said once: `chunked` alone or one number.
fn check_lengths(headers: &HeaderMap, raw: Option<&[u8]>) -> Result<(), Unclear> {
    let mut encodings = headers.get_all(TRANSFER_ENCODING).iter();
    if let Some(encoding) = encodings.next() {
        if encodings.next().is_some() || !encoding.as_bytes().eq_ignore_ascii_case(b"chunked") {
            return Err("a Transfer-Encoding other than chunked");
        }
        // The framework drops Content-Length beside Transfer-Encoding, so only the raw head still shows it.
        let dropped = raw.is_some_and(|raw| has_field(raw, b"content-length:"));
        if dropped || headers.contains_key(CONTENT_LENGTH) {
            return Err("Content-Length together with Transfer-Encoding");
        }
    }
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    if let Some(length) = lengths.next() {
        let digits = !length.is_empty() && length.as_bytes().iter().all(u8::is_ascii_digit);
        if !digits || lengths.next().is_some() {
            return Err("Content-Length is not one number");
        }
    }
    Ok(())
}

fn has_field(raw: &[u8], name_and_colon: &[u8]) -> bool {
    raw.split(|byte| *byte == b'\n')
        .any(|line| line.get(..name_and_colon.len()).is_some_and(|start| start.eq_ignore_ascii_case(name_and_colon)))
}

#[cfg(test)]
mod tests;
