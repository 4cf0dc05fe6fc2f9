//! What a description of a chute must look like.

use std::collections::BTreeSet;

use protocol::directory::{Cord, Template, TokenPrice};
use serde::Deserialize;

/// Most entry points of one chute.
const MOST_CORDS: usize = 64;
/// Most calls one instance may serve at once.
const MOST_CONCURRENT: u32 = 256;
/// Longest path of an entry point.
const LONGEST_PATH: usize = 256;

/// A chute as its developer describes it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// Its owner, by identifier or name.
    pub user: String,
    /// Its name, for LLM chutes the model's name.
    pub name: String,
    /// Its image, by identifier or as `[user/]name:tag`.
    pub image: String,
    /// The façade it serves, if any.
    #[serde(default)]
    pub template: Option<Template>,
    /// Whether everybody may call it.
    #[serde(default)]
    pub public: bool,
    /// Calls one instance serves at once.
    #[serde(default = "one")]
    pub concurrency: u32,
    /// Its entry points.
    pub cords: Vec<CordDescription>,
    /// The model object its engine reports.
    #[serde(default)]
    pub model: Option<serde_json::Value>,
    /// Prices in micro-dollars per million tokens.
    #[serde(default)]
    pub price: Option<TokenPrice>,
    /// Compute multiplier × boost.
    #[serde(default = "plain")]
    pub multiplier: f64,
}

/// An entry point as the developer describes it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CordDescription {
    function: String,
    path: String,
    #[serde(default)]
    public_path: Option<String>,
    #[serde(default = "post")]
    public_method: String,
    #[serde(default)]
    stream: bool,
    #[serde(default)]
    passthrough: bool,
    #[serde(default)]
    content_type: Option<String>,
}

/// Why a description is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidChute {
    /// The name breaks the rule for names.
    #[error(
        "a chute's name has 3 to 127 letters, digits, _, ., - and /, and a part that starts with a letter or digit"
    )]
    Name,
    /// There are none, or too many.
    #[error("a chute has 1 to {MOST_CORDS} cords")]
    Cords,
    /// The concurrency is out of range.
    #[error("concurrency is 1 to {MOST_CONCURRENT}")]
    Concurrency,
    /// The multiplier is not a positive number.
    #[error("a multiplier is a positive number below a million")]
    Multiplier,
    /// A price is more than the database keeps.
    #[error("a price is at most {}", i64::MAX)]
    Price,
    /// A cord breaks a rule.
    #[error("cord {function}: {rule}")]
    Cord {
        /// Its function.
        function: String,
        /// The rule.
        rule: &'static str,
    },
    /// Two cords cannot be told apart.
    #[error("two cords answer {method} {path} alike")]
    Ambiguous {
        /// Their public method.
        method: String,
        /// Their public path.
        path: String,
    },
}

impl Description {
    /// Checks the description and gives its entry points.
    ///
    /// # Errors
    /// Names the first broken rule.
    pub fn check(&self) -> Result<Vec<Cord>, InvalidChute> {
        if !name_is_valid(&self.name) {
            return Err(InvalidChute::Name);
        }
        check_concurrency(self.concurrency)?;
        check_multiplier(self.multiplier)?;
        if let Some(price) = self.price {
            check_price(price)?;
        }
        if self.cords.is_empty() || self.cords.len() > MOST_CORDS {
            return Err(InvalidChute::Cords);
        }
        let cords = self.cords.iter().map(CordDescription::check).collect::<Result<Vec<_>, _>>()?;
        let mut seen = BTreeSet::new();
        for cord in &cords {
            let Some(path) = &cord.public_path else { continue };
            if !seen.insert((path, &cord.public_method, cord.stream)) {
                return Err(InvalidChute::Ambiguous { method: cord.public_method.clone(), path: path.clone() });
            }
        }
        Ok(cords)
    }
}

impl CordDescription {
    fn check(&self) -> Result<Cord, InvalidChute> {
        let broken = |rule| InvalidChute::Cord { function: self.function.chars().take(64).collect(), rule };
        if !word_is_valid(&self.function, "_") {
            return Err(broken("a function's name has letters, digits and _, and starts with a letter or _"));
        }
        if !path_is_valid(&self.path, "_") {
            return Err(broken("a path is /parts of letters, digits and _, each starting with a letter"));
        }
        if self.public_path.as_ref().is_some_and(|path| !path_is_valid(path, "_-")) {
            return Err(broken("a public path is /parts of letters, digits, _ and -, each starting with a letter"));
        }
        if !["GET", "POST"].contains(&self.public_method.as_str()) {
            return Err(broken("a public method is GET or POST"));
        }
        let printable = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
        if self.content_type.as_ref().is_some_and(|kind| kind.is_empty() || !kind.bytes().all(printable)) {
            return Err(broken("a content type is printable text"));
        }
        Ok(Cord {
            function: self.function.clone(),
            path: self.path.clone(),
            public_path: self.public_path.clone(),
            public_method: self.public_method.clone(),
            stream: self.stream,
            passthrough: self.passthrough,
            content_type: self.content_type.clone(),
        })
    }
}

/// Checks how many calls an instance shall serve at once.
///
/// # Errors
/// When it is out of range.
pub fn check_concurrency(concurrency: u32) -> Result<(), InvalidChute> {
    if (1..=MOST_CONCURRENT).contains(&concurrency) { Ok(()) } else { Err(InvalidChute::Concurrency) }
}

/// Checks compute multiplier × boost.
///
/// # Errors
/// When it is not a positive number below a million.
pub fn check_multiplier(multiplier: f64) -> Result<(), InvalidChute> {
    if multiplier > 0.0 && multiplier < 1e6 { Ok(()) } else { Err(InvalidChute::Multiplier) }
}

/// Checks that the database can keep a price.
///
/// # Errors
/// When it cannot.
pub fn check_price(price: TokenPrice) -> Result<(), InvalidChute> {
    let kept = |price: u64| i64::try_from(price).is_ok();
    if kept(price.input) && kept(price.output) { Ok(()) } else { Err(InvalidChute::Price) }
}

/// `^(?:([a-zA-Z0-9_\.-]+)/)*([a-z0-9][a-z0-9_\.\/-]*)$`, case-insensitive, 3 to 127 characters.
fn name_is_valid(name: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    let led = |part: &&str| part.starts_with(|first: char| first.is_ascii_alphanumeric());
    let before_it = name.split('/').take_while(|part| !led(part)).count();
    let parts = || name.split('/');
    (3..128).contains(&name.len())
        && parts().nth(before_it).is_some()
        && parts().take(before_it).all(|part| !part.is_empty())
        && parts().all(|part| part.bytes().all(letter))
}

/// `^(/[a-z][a-z0-9…]*)+$`, case-insensitive, with these characters besides letters and digits.
fn path_is_valid(path: &str, besides: &str) -> bool {
    let starts = |part: &str| part.starts_with(|first: char| first.is_ascii_alphabetic());
    path.len() <= LONGEST_PATH
        && path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(|part| starts(part) && made_of(part, besides)))
}

fn word_is_valid(word: &str, besides: &str) -> bool {
    let starts = word.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    word.len() <= 128 && starts && made_of(word, besides)
}

fn made_of(text: &str, besides: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || besides.as_bytes().contains(&byte))
}

fn one() -> u32 {
    1
}

fn plain() -> f64 {
    1.0
}

fn post() -> String {
    "POST".to_owned()
}

#[cfg(test)]
mod tests;
