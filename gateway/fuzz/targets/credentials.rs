//! Credentials nobody was given: none of them proves anything, and reading one never fails otherwise than clearly.

use std::time::Duration;

use chrono::DateTime;
use gateway::auth::Presented;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};
use protocol::credential::API_KEY_PREFIX;
use protocol::headers;
use protocol::ids::UserId;
use protocol::session::{SessionSigner, SessionVerifier};
use protocol::signing::{Covers, Hotkey, Signed, verify_inward};

/// When the test takes place.
const NOW: i64 = 1_700_000_000;

/// `data` is `Authorization`, hotkey, nonce, signature, a line each, then a body; a line with a tab stands twice.
pub(crate) fn run(data: &[u8]) {
    let mut rest = data;
    let mut headers = HeaderMap::new();
    for name in [AUTHORIZATION, name(headers::HOTKEY), name(headers::NONCE), name(headers::SIGNATURE)] {
        let (value, after) = super::line(rest);
        rest = after;
        for part in value.split(|byte| *byte == b'\t').filter(|part| !part.is_empty()).take(3) {
            let Ok(value) = HeaderValue::from_bytes(part) else { return };
            headers.append(name.clone(), value);
        }
    }
    match Presented::read(&headers) {
        Ok(Presented::Key(key)) => {
            assert!(key.reveal().starts_with(API_KEY_PREFIX) && key.reveal().len() == API_KEY_PREFIX.len() + 98);
        }
        Ok(Presented::Session(token)) => check_session(&token),
        Ok(Presented::Signed { hotkey, nonce, signature }) => {
            let signed = Signed { hotkey: &hotkey, nonce: &nonce, signature: &signature };
            assert!(verify_inward(&signed, Covers::Body(rest), NOW).is_err(), "a signature out of nothing");
            if let Ok(address) = Hotkey::parse(&hotkey) {
                assert_eq!(Hotkey::from_public(address.public()).as_str(), hotkey, "one key has two addresses");
            }
        }
        Ok(Presented::None) => {
            let empty = |value: &HeaderValue| value.as_bytes().trim_ascii().is_empty();
            assert!(headers.get(AUTHORIZATION).is_none_or(empty), "a credential is overlooked");
        }
        Err(refusal) => assert_eq!(refusal.status().as_u16(), 401),
    }
}

fn check_session(token: &str) {
    let now = DateTime::from_timestamp(NOW, 0).expect("a time");
    let signer = SessionSigner::from_seed([7; 32]);
    let user: UserId = "6ba7b812-9dad-11d1-80b4-00c04fd430c8".parse().expect("a UUID");
    let ours = signer.sign(user, 1, now, Duration::from_secs(60));
    let verified = SessionVerifier::new(signer.public_key()).verify(token, now);
    assert!(verified.is_err() || token == ours, "a session out of nothing");
}

fn name(text: &'static str) -> HeaderName {
    HeaderName::from_static(text)
}
