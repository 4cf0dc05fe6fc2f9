//! The name of a chute in a host name.

use std::fmt;

use deunicode::deunicode;
use serde::{Deserialize, Serialize};

/// A chute's label in host names: 1 to 63 of `[a-z0-9-]`, no dash at either end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Slug(String);

/// A text that is no slug.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a slug: 1 to 63 of a-z, 0-9 and -, without a - at either end")]
pub struct InvalidSlug;

impl Slug {
    /// The longest label DNS allows.
    pub const MAX_LENGTH: usize = 63;
    /// Where [`Slug::of_name`] cuts.
    const MAX_BASE_LENGTH: usize = 58;

    /// Reads a slug; upper case is refused, callers lower a host name first.
    ///
    /// # Errors
    /// When the text is not a slug.
    pub fn parse(text: &str) -> Result<Self, InvalidSlug> {
        let known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let dashed = text.starts_with('-') || text.ends_with('-');
        if text.is_empty() || text.len() > Self::MAX_LENGTH || dashed || !text.bytes().all(known) {
            return Err(InvalidSlug);
        }
        Ok(Self(text.to_owned()))
    }

    /// The first slug to try for a user's chute: `{username}-{chute name}`, transliterated, lower-cased, each run of
    /// anything else than letters and digits one dash, cut to 58.
    ///
    /// The recipe is python-slugify's, as far as names of users and chutes can show: an ASCII quote parts words, one
    /// that comes from transliteration vanishes, and so does a comma between digits. Two things differ, both beyond
    /// what names may hold: HTML entities are not resolved, and scripts are transliterated by another table.
    /// Names without any letter or digit give `chute`.
    #[must_use]
    pub fn of_name(username: &str, chute_name: &str) -> Self {
        let parted = format!("{username}-{chute_name}").replace('\'', "-");
        let plain = deunicode(&parted).to_ascii_lowercase().replace('\'', "");
        let mut dashed = String::with_capacity(plain.len());
        for (at, byte) in plain.bytes().enumerate() {
            if byte.is_ascii_alphanumeric() {
                dashed.push(char::from(byte));
            } else if !parts_digits(plain.as_bytes(), at) && !dashed.ends_with('-') {
                dashed.push('-');
            }
        }
        let base = cut(dashed.trim_matches('-'), Self::MAX_BASE_LENGTH);
        Self(if base.is_empty() { "chute".to_owned() } else { base.to_owned() })
    }

    /// This slug with `-` and a suffix, for a name that is taken; the base gives way so that the whole fits a label.
    ///
    /// # Errors
    /// When the suffix cannot end a slug.
    pub fn with_suffix(&self, suffix: &str) -> Result<Self, InvalidSlug> {
        let room = Self::MAX_LENGTH.checked_sub(suffix.len() + 1).filter(|room| *room > 0).ok_or(InvalidSlug)?;
        Self::parse(&format!("{}-{suffix}", cut(&self.0, room)))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Slug {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Slug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for Slug {
    type Err = InvalidSlug;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl TryFrom<String> for Slug {
    type Error = InvalidSlug;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<Slug> for String {
    fn from(slug: Slug) -> Self {
        slug.0
    }
}

/// Whether the byte at `at` is the comma of a number such as `1,000`.
fn parts_digits(text: &[u8], at: usize) -> bool {
    let digit = |at: Option<usize>| at.and_then(|at| text.get(at)).is_some_and(u8::is_ascii_digit);
    text[at] == b',' && digit(at.checked_sub(1)) && digit(at.checked_add(1))
}

/// The first `length` bytes of an ASCII text, without a dash at the end.
fn cut(text: &str, length: usize) -> &str {
    text.get(..length).unwrap_or(text).trim_end_matches('-')
}

#[cfg(test)]
mod tests;
