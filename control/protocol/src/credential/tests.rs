//! Tests of `credential`: the key's text by a table, scopes by a table.

use uuid::uuid;

use super::*;

const TEXT: &str =
    "cpk_6ba7b8129dad11d180b400c04fd430c8.11111111222233334444555555555555.AbCdEfGhIjKlMnOpQrStUvWxYz012345";
const ONE: Uuid = uuid!("6ba7b812-9dad-11d1-80b4-00c04fd430c8");
const OTHER: Uuid = uuid!("11111111-2222-3333-4444-555555555555");

#[test]
fn a_key_names_itself_and_then_its_user() {
    let key = ApiKey::parse(TEXT).unwrap();
    assert_eq!(key.id(), ApiKeyId(ONE));
    assert_eq!(key.user(), UserId(OTHER));
    assert_eq!(key.reveal(), TEXT);
}

#[test]
fn a_new_key_is_102_characters_that_parse() {
    let user = UserId(OTHER);
    let key = ApiKey::generate(user);
    let read = ApiKey::parse(key.reveal()).unwrap();
    assert_eq!(key.reveal().len(), 102);
    assert_eq!((read.id(), read.user()), (key.id(), user));
    assert_ne!(key.reveal(), ApiKey::generate(user).reveal());
}

#[test]
fn a_key_with_a_wrong_part_is_no_key() {
    let id = &TEXT[4..36];
    let secret = &TEXT[70..];
    let wrong = [
        String::new(),
        "cpk_".into(),
        TEXT[4..].into(),
        format!("CPK_{}", &TEXT[4..]),
        format!("{TEXT}6"),
        format!("{TEXT}\n"),
        format!(" {TEXT}"),
        format!("{TEXT}."),
        TEXT[..101].into(),
        TEXT.replace("6ba7", "6BA7"),
        TEXT.replace("6ba7", "6ga7"),
        TEXT.replace('A', "-"),
        TEXT.replace('A', "é"),
        format!("cpk_{id}.{secret}"),
        format!("cpk_{ONE}.{OTHER}.{secret}"),
        format!("cpk_{id}.{id}.{id}.{secret}"),
    ];
    for text in wrong {
        assert!(ApiKey::parse(&text).is_none(), "{text}");
    }
}

#[test]
fn the_stored_hash_is_sha256_of_the_text() {
    let hash = ApiKey::parse(TEXT).unwrap().hash();
    let text = r#""61a5dbca7363d7869bf7166a2b8248631f398a13e06ffd19e6cb137d98fc8c37""#;
    assert_eq!(serde_json::to_string(&hash).unwrap(), text);
    assert_eq!(serde_json::from_str::<KeyHash>(text).unwrap(), hash);
    assert!(serde_json::from_str::<KeyHash>("\"00\"").is_err());
}

#[test]
fn a_hash_matches_its_own_key_only() {
    let key = ApiKey::parse(TEXT).unwrap();
    let near = ApiKey::parse(&TEXT.replace("012345", "012346")).unwrap();
    assert!(key.hash().matches(&key));
    assert!(!key.hash().matches(&near));
}

#[test]
fn a_scope_without_id_or_action_covers_all_of_them() {
    let all = Scope { object: ObjectKind::Chutes, id: None, action: None };
    let invoke = Scope { action: Some(Action::Invoke), ..all };
    let one = Scope { id: Some(ONE), ..all };
    let table = [
        (all, ObjectKind::Chutes, Some(ONE), Action::Read, true),
        (all, ObjectKind::Chutes, None, Action::Delete, true),
        (all, ObjectKind::Images, None, Action::Read, false),
        (invoke, ObjectKind::Chutes, Some(OTHER), Action::Invoke, true),
        (invoke, ObjectKind::Chutes, Some(OTHER), Action::Write, false),
        (one, ObjectKind::Chutes, Some(ONE), Action::Invoke, true),
        (one, ObjectKind::Chutes, Some(OTHER), Action::Invoke, false),
        (one, ObjectKind::Chutes, None, Action::Invoke, false),
    ];
    for (scope, object, id, action, allowed) in table {
        let scopes = Scopes::Listed(vec![scope]);
        assert_eq!(scopes.allow(object, id, action), allowed, "{scope:?} {object:?} {id:?} {action:?}");
    }
}

#[test]
fn an_admin_key_may_everything_and_an_empty_list_nothing() {
    assert!(Scopes::Admin.allow(ObjectKind::Images, None, Action::Delete));
    assert!(!Scopes::Listed(Vec::new()).allow(ObjectKind::Images, None, Action::Read));
}

#[test]
fn scopes_have_the_names_users_send() {
    let text = r#"{"listed":[{"object_type":"chutes","object_id":"6ba7b812-9dad-11d1-80b4-00c04fd430c8","action":"invoke"},{"object_type":"images"}]}"#;
    let scopes = Scopes::Listed(vec![
        Scope { object: ObjectKind::Chutes, id: Some(ONE), action: Some(Action::Invoke) },
        Scope { object: ObjectKind::Images, id: None, action: None },
    ]);
    assert_eq!(serde_json::to_string(&scopes).unwrap(), text);
    assert_eq!(serde_json::from_str::<Scopes>(text).unwrap(), scopes);
    assert_eq!(serde_json::to_string(&Scopes::Admin).unwrap(), "\"admin\"");
}

#[test]
fn the_token_is_the_last_word_of_the_header() {
    assert_eq!(authorization_token("Bearer abc"), Some("abc"));
    assert_eq!(authorization_token("abc"), Some("abc"));
    assert_eq!(authorization_token("  Basic  x  abc\t"), Some("abc"));
    assert_eq!(authorization_token("  "), None);
}
