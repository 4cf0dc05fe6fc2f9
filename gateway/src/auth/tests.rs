//! Tests of `auth`.

use http::HeaderValue;
use protocol::credential::Scope;

use super::*;

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
