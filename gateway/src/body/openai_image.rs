//! Requests of OpenAI's `images.generate`, put into the words of diffusion chutes, and their answers.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use super::fields::Fields;
use super::typed;
use crate::refusal::Refusal;

/// Where OpenAI's clients ask for images.
pub(super) const PATH: &str = "/v1/images/generations";
/// Where diffusion chutes make them.
pub(super) const GENERATE: &str = "/generate";

/// Fields that ask for what a chute gives anyway, and their values in JSON.
const FIXED: [(&str, &[&str]); 6] = [
    ("n", &["1"]),
    ("response_format", &["\"b64_json\""]),
    ("stream", &["false"]),
    ("quality", &["\"auto\"", "\"standard\""]),
    ("background", &["\"auto\"", "\"opaque\""]),
    ("moderation", &["\"auto\"", "\"low\""]),
];
/// What a client says about its own user; an instance is not told.
const ABOUT_USER: &str = "user";
/// Pixels of a side.
const SIDE: std::ops::RangeInclusive<u32> = 128..=2048;

/// Puts a request into the words of diffusion chutes; what these take beside passes as it is.
pub(super) fn translate(fields: &mut Fields<'_>) -> Result<(), Refusal> {
    for (name, allowed) in FIXED {
        check(fields, name, allowed)?;
        fields.remove(name);
    }
    fields.remove(ABOUT_USER);
    let size: Option<String> = typed(fields, "size", "a string")?;
    fields.remove("size");
    let Some(size) = size.filter(|size| size != "auto") else { return Ok(()) };
    if fields.get("width").is_some() || fields.get("height").is_some() {
        return Err(Refusal::BadRequest("size stands for width and height: give one or the other".into()));
    }
    let (width, height) = sides(&size).ok_or_else(|| {
        let (least, most) = (SIDE.start(), SIDE.end());
        Refusal::BadRequest(format!(
            "size must be \"auto\" or \"WIDTHxHEIGHT\" with sides from {least} to {most}, as in \"1024x768\""
        ))
    })?;
    fields.set("width", &width);
    fields.set("height", &height);
    Ok(())
}

/// The answer with an image in the form of OpenAI; `created` is a Unix time.
#[must_use]
pub fn answer(image: &[u8], created: i64) -> Bytes {
    format!("{{\"created\":{created},\"data\":[{{\"b64_json\":\"{}\"}}]}}", STANDARD.encode(image)).into()
}

fn check(fields: &Fields<'_>, name: &str, allowed: &[&str]) -> Result<(), Refusal> {
    let Some(given) = fields.get(name) else { return Ok(()) };
    if allowed.contains(&given.get()) {
        return Ok(());
    }
    Err(Refusal::BadRequest(format!("{name} must be {} or left out", allowed.join(" or "))))
}

/// Reads `WIDTHxHEIGHT`.
fn sides(size: &str) -> Option<(u32, u32)> {
    let (width, height) = size.split_once('x')?;
    let side = |text: &str| {
        let digits = text.len() <= 4 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|side| digits && SIDE.contains(side))
    };
    Some((side(width)?, side(height)?))
}

#[cfg(test)]
mod tests;
