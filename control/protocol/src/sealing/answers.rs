//! Answers to calls as they rest in Redis: AES-256-GCM under a key that is derived from the directory key.

use sha2::{Digest, Sha256};

use super::{CannotOpen, DirectoryKey, cipher};

/// What the key is derived for, so that nothing sealed under another key of ours can be taken for an answer.
const PURPOSE: &[u8] = b"chutes answers that are replayed 1";

/// The key under which answers rest; only gateways use it, never printed.
#[derive(Clone)]
pub struct AnswerKey([u8; 32]);

/// A fingerprint under the answer key: without the key nobody can find out of what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AnswerDigest(pub [u8; 32]);

impl DirectoryKey {
    /// The key for answers.
    #[must_use]
    pub fn answer_key(&self) -> AnswerKey {
        let mut hash = Sha256::new();
        hash.update(PURPOSE);
        hash.update(self.0);
        AnswerKey(hash.finalize().into())
    }
}

impl AnswerKey {
    /// The fingerprint of some texts in their order.
    #[must_use]
    pub fn digest(&self, texts: &[&[u8]]) -> AnswerDigest {
        let mut hash = Sha256::new();
        hash.update(self.0);
        for text in texts {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        }
        AnswerDigest(hash.finalize().into())
    }

    /// Seals a text that rests under `name`: nonce, ciphertext and tag.
    ///
    /// # Panics
    /// Never: texts are far below the cipher's limits.
    #[must_use]
    pub fn seal(&self, text: &[u8], name: &AnswerDigest) -> Vec<u8> {
        cipher::seal(&self.0, rand::random(), &name.0, text)
    }

    /// Opens what rests under `name`.
    ///
    /// # Errors
    /// When it was sealed for another name, under another key, or changed since.
    pub fn open(&self, sealed: &[u8], name: &AnswerDigest) -> Result<Vec<u8>, CannotOpen> {
        cipher::open(&self.0, &name.0, sealed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(digit: &str) -> AnswerKey {
        DirectoryKey::from_hex(&digit.repeat(64)).unwrap().answer_key()
    }

    #[test]
    fn an_answer_opens_under_its_name_and_key_only() {
        let (key, name) = (key("1"), AnswerDigest([7; 32]));
        let sealed = key.seal(b"the answer", &name);
        assert_eq!(key.open(&sealed, &name).unwrap(), b"the answer");
        assert!(!sealed.windows(6).any(|window| window == b"answer"));
        assert_ne!(sealed, key.seal(b"the answer", &name));
        let mut changed = sealed.clone();
        *changed.last_mut().unwrap() ^= 1;
        for (key, text, name) in [
            (&self::key("2"), &sealed[..], name),
            (&key, &sealed[..], AnswerDigest([8; 32])),
            (&key, &changed[..], name),
            (&key, &sealed[..11], name),
            (&key, &sealed[..20], name),
        ] {
            assert_eq!(key.open(text, &name), Err(CannotOpen));
        }
    }

    #[test]
    fn the_answer_key_opens_nothing_of_the_directory() {
        let directory = DirectoryKey::from_hex(&"1".repeat(64)).unwrap();
        assert_ne!(directory.answer_key().0, directory.0);
    }

    #[test]
    fn a_digest_depends_on_the_key_and_on_where_texts_end() {
        let digest = key("1").digest(&[b"ab", b"c"]);
        assert_eq!(digest, key("1").digest(&[b"ab", b"c"]));
        assert_ne!(digest, key("1").digest(&[b"a", b"bc"]));
        assert_ne!(digest, key("1").digest(&[b"abc"]));
        assert_ne!(digest, key("2").digest(&[b"ab", b"c"]));
    }
}
