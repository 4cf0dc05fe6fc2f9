//! Tests of `session`: the key against RFC 8032, forged tokens by a table.

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use uuid::uuid;

use super::*;

mod vectors;

/// Seed and public key of RFC 8032, 7.1, test 1.
const SEED: &str = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
const PUBLIC: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
const USER: UserId = UserId(uuid!("6ba7b812-9dad-11d1-80b4-00c04fd430c8"));
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

fn bytes(text: &str) -> [u8; 32] {
    hex::decode(text).unwrap().try_into().unwrap()
}

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(seconds, 0).unwrap()
}

fn signer() -> SessionSigner {
    SessionSigner::from_seed(bytes(SEED))
}

fn verifier() -> SessionVerifier {
    SessionVerifier::new(bytes(PUBLIC))
}

/// A token of any header and claims, signed as EdDSA by the right key.
fn signed(header: &Value, claims: &Value) -> String {
    let message = format!("{}.{}", part(header), part(claims));
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &signer().key, Algorithm::EdDSA).unwrap();
    format!("{message}.{signature}")
}

fn part(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

fn claims() -> Value {
    json!({ "sub": USER, "gen": 3, "iat": 1_700_000_000, "exp": 1_700_000_060 })
}

#[test]
fn the_public_key_is_that_of_rfc_8032() {
    assert_eq!(hex::encode(signer().public_key()), PUBLIC);
}

#[test]
fn a_token_says_what_was_signed() {
    let token = signer().sign(USER, 3, at(1_700_000_000), WEEK);
    let session = verifier().verify(&token, at(1_700_000_001)).unwrap();
    assert_eq!(session, Session { user: USER, generation: 3, expires_at: at(1_700_604_800) });
}

#[test]
fn a_token_has_golden_bytes() {
    let token = signer().sign(USER, 3, at(1_700_000_000), Duration::from_secs(60));
    assert_eq!(
        token,
        "eyJ0eXAiOiJKV1QiLCJhbGciOiJFZERTQSJ9.eyJzdWIiOiI2YmE3YjgxMi05ZGFkLTExZDEtODBiNC0wMGMwNGZkNDMwYzgiLCJnZW4iOjMsImlhdCI6MTcwMDAwMDAwMCwiZXhwIjoxNzAwMDAwMDYwfQ.FMNtcFx2XTtGmuCnQYNQ-EpqxBedSCW5jVVf0Mekep8h2VjP2ehuC5HX2hX3CIREssI3ANiePVLsNG09HwYnDQ"
    );
}

#[test]
fn a_token_is_refused_from_the_second_it_expires() {
    let token = signer().sign(USER, 3, at(1_700_000_000), Duration::from_secs(60));
    assert!(verifier().verify(&token, at(1_700_000_059)).is_ok());
    assert_eq!(verifier().verify(&token, at(1_700_000_060)), Err(InvalidSession::Expired));
    assert_eq!(verifier().verify(&token, at(1_800_000_000)), Err(InvalidSession::Expired));
}

#[test]
fn an_absurd_lifetime_does_not_wrap_around() {
    let token = signer().sign(USER, 3, at(1_700_000_000), Duration::MAX);
    assert_eq!(verifier().verify(&token, at(1_700_000_000)), Err(InvalidSession::Malformed));
}

#[test]
fn changed_claims_are_refused() {
    let token = signer().sign(USER, 3, at(1_700_000_000), WEEK);
    let [header, _, signature] = token.split('.').collect::<Vec<_>>().try_into().unwrap();
    let longer = part(&json!({ "sub": USER, "gen": 4, "iat": 1_700_000_000, "exp": 1_700_604_800 }));
    let forged = format!("{header}.{longer}.{signature}");
    assert_eq!(verifier().verify(&forged, at(1_700_000_001)), Err(InvalidSession::Signature));
}

#[test]
fn another_key_is_refused() {
    let token = SessionSigner::from_seed([7; 32]).sign(USER, 3, at(1_700_000_000), WEEK);
    assert_eq!(verifier().verify(&token, at(1_700_000_001)), Err(InvalidSession::Signature));
}

#[test]
fn an_expired_forgery_is_called_a_forgery() {
    let token = SessionSigner::from_seed([7; 32]).sign(USER, 3, at(1_700_000_000), WEEK);
    assert_eq!(verifier().verify(&token, at(1_800_000_000)), Err(InvalidSession::Signature));
}

#[test]
fn a_token_without_signature_is_refused() {
    let bare = format!("{}.{}.", part(&json!({ "alg": "none", "typ": "JWT" })), part(&claims()));
    assert_eq!(verifier().verify(&bare, at(1_700_000_001)), Err(InvalidSession::Malformed));
}

#[test]
fn the_public_key_as_a_shared_secret_is_refused() {
    let header = Header::new(Algorithm::HS256);
    for secret in [bytes(PUBLIC).to_vec(), PUBLIC.as_bytes().to_vec()] {
        let token = jsonwebtoken::encode(&header, &claims(), &EncodingKey::from_secret(&secret)).unwrap();
        assert_eq!(verifier().verify(&token, at(1_700_000_001)), Err(InvalidSession::Malformed));
    }
}

#[test]
fn a_good_signature_under_another_algorithm_is_refused() {
    for algorithm in ["none", "HS256", "RS256", "ES256", "eddsa", ""] {
        let token = signed(&json!({ "alg": algorithm, "typ": "JWT" }), &claims());
        assert_eq!(verifier().verify(&token, at(1_700_000_001)), Err(InvalidSession::Malformed), "{algorithm}");
    }
}

#[test]
fn a_missing_or_odd_claim_is_refused() {
    let header = json!({ "alg": "EdDSA", "typ": "JWT" });
    assert!(verifier().verify(&signed(&header, &claims()), at(1_700_000_001)).is_ok());
    for (claim, value) in [("sub", json!("me")), ("gen", json!(-1)), ("exp", json!("soon")), ("exp", json!(i64::MAX))] {
        let mut odd = claims();
        odd[claim] = value;
        assert_eq!(verifier().verify(&signed(&header, &odd), at(1_700_000_001)), Err(InvalidSession::Malformed));
        odd.as_object_mut().unwrap().remove(claim);
        assert_eq!(verifier().verify(&signed(&header, &odd), at(1_700_000_001)), Err(InvalidSession::Malformed));
    }
}

#[test]
fn what_is_no_token_is_malformed() {
    for text in ["", ".", "..", "...", "a.b.c", "cpk_x", "é.é.é"] {
        assert_eq!(verifier().verify(text, at(0)), Err(InvalidSession::Malformed), "{text}");
    }
}

#[test]
fn bytes_that_are_no_key_refuse_every_token() {
    let token = signer().sign(USER, 3, at(1_700_000_000), WEEK);
    let broken = SessionVerifier::new([2; 32]);
    assert_eq!(broken.verify(&token, at(1_700_000_001)), Err(InvalidSession::Signature));
}
