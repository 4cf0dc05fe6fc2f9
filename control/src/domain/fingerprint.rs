//! The fingerprint: the password of an account.

use std::fmt;

use blake2::{Blake2b512, Digest};
use rand::seq::IndexedRandom;

/// Characters of a fingerprint, all different.
const LENGTH: usize = 32;
const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// A fingerprint; shown once, never printed.
pub struct Fingerprint(String);

impl Fingerprint {
    /// Makes a new one.
    #[must_use]
    pub fn generate() -> Self {
        let chosen = ALPHABET.choose_multiple(&mut rand::rng(), LENGTH);
        Self(chosen.map(|byte| char::from(*byte)).collect())
    }

    /// The form in which it is stored: hex BLAKE2b-512.
    #[must_use]
    pub fn hash(&self) -> FingerprintHash {
        FingerprintHash(hex::encode(Blake2b512::digest(self.0.as_bytes())))
    }

    /// The secret, for the one reply that shows it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

/// What is stored of a fingerprint; the user's identifier is made from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FingerprintHash(String);

impl fmt::Display for FingerprintHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_fingerprint_has_32_different_letters_and_digits_in_any_order() {
        let made: BTreeSet<String> = (0..50).map(|_| Fingerprint::generate().0).collect();
        assert_eq!(made.len(), 50);
        for text in made {
            let distinct: BTreeSet<char> = text.chars().collect();
            assert_eq!((text.len(), distinct.len()), (32, 32));
            assert!(text.chars().all(|letter| letter.is_ascii_alphanumeric()));
        }
    }

    #[test]
    fn its_hash_is_hex_blake2b_512() {
        let hash = Fingerprint("abc".into()).hash().to_string();
        assert_eq!(
            hash,
            "ba80a53f981c4d0d6a2797b69f12f6e94c212f14685ac4b74b12bb6fdbffa2d1\
             7d87c5392aab792dc252d5de4533cc9518d38aa8dbf1925ab92386edd4009923"
        );
    }
}
