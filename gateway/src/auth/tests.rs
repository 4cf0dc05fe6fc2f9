//! Tests of `auth`.

use std::time::Duration;

use http::HeaderValue;
use protocol::credential::Scope;
use protocol::keys::Key;
use protocol::principal::{HotkeyEntry, KeyEntry};
use protocol::session::SessionSigner;
use protocol::signing::Keypair;

use super::*;
use crate::metrics::Metrics;

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(*name, HeaderValue::from_str(value).unwrap());
    }
    headers
}

fn caller(scopes: Scopes) -> Caller {
    let user = UserEntry {
        id: UserId::random(),
        username: "caller".into(),
        generation: 0,
        permissions: 0,
        rate_per_minute: None,
        max_concurrent: None,
        quotas: [].into(),
        deleted: false,
    };
    Caller { user: Arc::new(user), via: Via::Key { id: ApiKeyId::random(), scopes } }
}

#[test]
fn a_credential_is_read_with_and_without_its_scheme() {
    let key = ApiKey::generate(UserId::random());
    for value in [key.reveal().to_owned(), format!("Bearer {}", key.reveal()), format!("bearer  {}", key.reveal())] {
        let read = Presented::read(&headers(&[("authorization", &value)]));
        assert!(matches!(read, Ok(Presented::Key(read)) if read.reveal() == key.reveal()));
    }
    assert!(matches!(Presented::read(&headers(&[("authorization", "Bearer a.b.c")])), Ok(Presented::Session(_))));
    assert!(matches!(Presented::read(&headers(&[])), Ok(Presented::None)));
    assert!(matches!(Presented::read(&headers(&[("authorization", " ")])), Ok(Presented::None)));
}

#[test]
fn a_credential_that_cannot_be_one_is_refused() {
    let refused = |pairs: &[(&'static str, &str)]| {
        assert!(matches!(Presented::read(&headers(pairs)), Err(Refusal::InvalidCredential(_))), "{pairs:?}");
    };
    refused(&[("authorization", "Bearer cpk_short")]);
    refused(&[("authorization", "a"), ("authorization", "b")]);
    refused(&[("authorization", &"x".repeat(MAX_CREDENTIAL + 1))]);
    refused(&[("x-chutes-hotkey", "5G"), ("x-chutes-signature", "00")]);
    refused(&[("x-chutes-hotkey", "5G"), ("x-chutes-hotkey", "5H")]);
}

#[test]
fn s1_a_bare_hotkey_header_identifies_nobody() {
    assert!(matches!(Presented::read(&headers(&[("x-chutes-hotkey", "5G")])), Ok(Presented::None)));
    let read = Presented::read(&headers(&[("x-chutes-hotkey", "5G"), ("authorization", "token")]));
    assert!(matches!(read, Ok(Presented::Session(_))));
    let all =
        [("x-chutes-hotkey", "5G"), ("x-chutes-signature", "00"), ("x-chutes-nonce", "1"), ("authorization", "t")];
    assert!(matches!(Presented::read(&headers(&all)), Ok(Presented::Signed { .. })));
}

#[test]
fn a_scoped_key_invokes_its_chutes_only() {
    let (mine, other) = (ChuteId::random(), ChuteId::random());
    let scope = |id: Option<ChuteId>, action| Scope { object: ObjectKind::Chutes, id: id.map(|id| id.0), action };
    assert!(caller(Scopes::Admin).may_invoke(other));
    assert!(caller(Scopes::Listed(vec![scope(Some(mine), Some(Action::Invoke))])).may_invoke(mine));
    assert!(!caller(Scopes::Listed(vec![scope(Some(mine), Some(Action::Invoke))])).may_invoke(other));
    assert!(caller(Scopes::Listed(vec![scope(None, None)])).may_invoke(other));
    assert!(!caller(Scopes::Listed(vec![scope(None, Some(Action::Read))])).may_invoke(mine));
    assert!(!caller(Scopes::Listed(vec![])).may_invoke(mine));
}

/// Who is known in these tests.
struct Known {
    auth: Auth,
    principals: Arc<Principals>,
    user: UserEntry,
}

fn known(change: impl FnOnce(&mut UserEntry)) -> Known {
    let principals = Principals::alone(Arc::new(Metrics::new().unwrap()));
    let mut user = Arc::unwrap_or_clone(caller(Scopes::Admin).user);
    change(&mut user);
    principals.learn(&Key::user(user.id), Some(user.clone()));
    let sessions = SessionVerifier::new(signer().public_key());
    Known { auth: Auth::new(Arc::clone(&principals), sessions, Clock::default()), principals, user }
}

impl Known {
    /// A key of the user, as control keeps it.
    fn key(&self, change: impl FnOnce(&mut KeyEntry)) -> ApiKey {
        let key = ApiKey::generate(self.user.id);
        let (id, user) = (key.id(), self.user.id);
        let mut entry = KeyEntry { id, hash: key.hash(), user, scopes: Scopes::Listed(vec![]), revoked: false };
        change(&mut entry);
        self.principals.learn(&Key::api_key(key.id()), Some(entry));
        key
    }

    async fn identify(&self, presented: Presented) -> Result<Caller, Refusal> {
        self.auth.identify(presented, Covers::Body(b"")).await
    }
}

fn signer() -> SessionSigner {
    SessionSigner::from_seed([7; 32])
}

fn invalid(why: &'static str) -> Option<Refusal> {
    Some(Refusal::InvalidCredential(why))
}

#[tokio::test]
async fn a_key_is_its_users_with_its_scopes() {
    let known = known(|_| {});
    let key = known.key(|_| {});
    let found = known.identify(Presented::Key(key.clone())).await.unwrap();
    assert_eq!((found.user.id, found.via), (known.user.id, Via::Key { id: key.id(), scopes: Scopes::Listed(vec![]) }));
    assert_eq!(known.identify(Presented::None).await.err(), Some(Refusal::Unauthenticated));
}

#[tokio::test]
async fn a_key_that_is_wrong_revoked_or_of_nobody_is_refused() {
    let known = known(|_| {});
    let (wrong, revoked) = (known.key(|entry| entry.hash.0[31] ^= 1), known.key(|entry| entry.revoked = true));
    let unknown = ApiKey::generate(known.user.id);
    known.principals.learn::<KeyEntry>(&Key::api_key(unknown.id()), None);
    let nobody = UserId::random();
    known.principals.learn::<UserEntry>(&Key::user(nobody), None);
    let orphan = known.key(|entry| entry.user = nobody);
    for (key, why) in [
        (wrong, "unknown API key"),
        (unknown, "unknown API key"),
        (revoked, "the API key was revoked"),
        (orphan, "the account does not exist"),
    ] {
        assert_eq!(known.identify(Presented::Key(key)).await.err(), invalid(why));
    }
    let unread = known.identify(Presented::Key(ApiKey::generate(nobody))).await.err();
    assert!(
        matches!(unread, Some(Refusal::NotReady(_))),
        "who cannot be looked up is not refused for good: {unread:?}"
    );
}

#[tokio::test]
async fn a_deleted_user_has_neither_key_nor_session() {
    let known = known(|user| user.deleted = true);
    let token = signer().sign(known.user.id, 0, Clock::default().now(), Duration::from_secs(60));
    for presented in [Presented::Key(known.key(|_| {})), Presented::Session(token)] {
        assert_eq!(known.identify(presented).await.err(), invalid("the account does not exist"));
    }
}

#[tokio::test]
async fn a_session_ends_with_its_time_or_when_its_users_generation_has_passed_it() {
    let known = known(|user| user.generation = 5);
    let now = Clock::default().now();
    let (minute, other) = (Duration::from_secs(60), SessionSigner::from_seed([8; 32]));
    let sign = |generation| signer().sign(known.user.id, generation, now, minute);
    for (token, refused) in [
        (sign(4), invalid("the session was ended")),
        (sign(5), None),
        (sign(6), None),
        (signer().sign(known.user.id, 5, now - 2 * minute, minute), Some(Refusal::ExpiredSession)),
        (other.sign(known.user.id, 5, now, minute), invalid("invalid token")),
    ] {
        assert_eq!(known.identify(Presented::Session(token)).await.err(), refused);
    }
}

#[tokio::test]
async fn a_signature_is_screened_before_a_body_is_read_for_it_and_nothing_else_is() {
    let known = known(|_| {});
    let (mine, given_up) = (Keypair::from_seed([1; 32]), Keypair::from_seed([2; 32]));
    known.principals.learn(&Key::hotkey(mine.hotkey()), Some(HotkeyEntry { user: Some(known.user.id) }));
    known.principals.learn(&Key::hotkey(given_up.hotkey()), Some(HotkeyEntry { user: None }));
    let now = Clock::default().now().timestamp();
    let signed = |hotkey: &str, nonce: i64, signature: &str| Presented::Signed {
        hotkey: hotkey.into(),
        nonce: nonce.to_string(),
        signature: signature.into(),
    };
    let form = "00".repeat(64);
    for (presented, refused) in [
        (signed(mine.hotkey().as_str(), now, &form), None),
        (signed(given_up.hotkey().as_str(), now, &form), invalid("no account has this hotkey")),
        (signed("5Grw", now, &form), invalid("the hotkey is no address")),
        (signed(mine.hotkey().as_str(), now - 900, &form), invalid("the nonce is not a recent time")),
        (signed(mine.hotkey().as_str(), now, "00"), invalid("the signature does not fit")),
        (Presented::None, None),
        (Presented::Session("x".into()), None),
    ] {
        assert_eq!(known.auth.screen(&presented).await.err(), refused);
    }
    let forged = known.identify(signed(mine.hotkey().as_str(), now, &form)).await.err();
    assert_eq!(forged, invalid("the signature does not fit"), "the form proves nothing");
}

#[tokio::test]
async fn a_right_signature_is_not_accepted_where_it_cannot_be_spent() {
    let known = known(|_| {});
    let keypair = Keypair::from_seed([1; 32]);
    known.principals.learn(&Key::hotkey(keypair.hotkey()), Some(HotkeyEntry { user: Some(known.user.id) }));
    let nonce = Clock::default().now().timestamp().to_string();
    let message = protocol::signing::inward_message(keypair.hotkey(), &nonce, Covers::Body(b""));
    let signature = keypair.sign(message.as_bytes()).to_string();
    let presented = Presented::Signed { hotkey: keypair.hotkey().to_string(), nonce, signature };
    assert!(matches!(known.identify(presented).await.err(), Some(Refusal::NotReady(_))));
}

#[test]
fn the_longest_credential_that_is_looked_at_has_4096_bytes() {
    let read = |length| Presented::read(&headers(&[("authorization", &"x".repeat(length))]));
    assert!(matches!(read(4096), Ok(Presented::Session(_))));
    assert!(read(4097).is_err());
}

#[test]
fn a_session_or_a_hotkey_may_call_every_chute() {
    for via in [Via::Session, Via::Hotkey(Keypair::from_seed([1; 32]).hotkey().clone())] {
        assert!(Caller { via, ..caller(Scopes::Listed(vec![])) }.may_invoke(ChuteId::random()));
    }
}
