//! Tests of `principal`: the hashes as they lie in Redis, and which set may stand for the last good one.

use uuid::Uuid;

use super::*;

const CHUTE: &str = "00000000-0000-0000-0000-000000000007";

fn chute() -> Bucket {
    Bucket::Chute(ChuteId(Uuid::from_u128(7)))
}

fn funds(balance: i128) -> FundsEntry {
    FundsEntry {
        balance,
        day: NaiveDate::from_ymd_opt(2025, 10, 9).unwrap(),
        used: [(Bucket::Default, 3), (chute(), 4)].into(),
        marks: [(WriterId(Uuid::from_u128(1)), 12)].into(),
    }
}

#[test]
fn a_set_may_lose_half_of_its_users_and_keys_and_not_more_unless_it_is_forced() {
    let current = Complete { users: 10, keys: 20, forced: false };
    for (users, keys, may) in [
        (10, 20, true),
        (5, 10, true),
        (4, 10, false),
        (5, 9, false),
        (0, 0, false),
        (1_000, 1_000, true),
        (u64::MAX, u64::MAX, true),
    ] {
        let next = Complete { users, keys, forced: false };
        assert_eq!(next.may_replace(&current), may, "{users} users, {keys} keys");
        assert!(Complete { forced: true, ..next }.may_replace(&current));
    }
    let none = Complete { users: 0, keys: 0, forced: false };
    assert!(none.may_replace(&none));
}

#[test]
fn a_bucket_is_a_star_or_a_chute() {
    assert_eq!(Bucket::Default.to_string(), "*");
    assert_eq!(chute().to_string(), CHUTE);
    assert_eq!("*".parse(), Ok(Bucket::Default));
    assert_eq!(CHUTE.parse(), Ok(chute()));
    assert!("".parse::<Bucket>().is_err());
}

#[test]
fn funds_are_written_with_an_exact_balance() {
    let text = serde_json::to_string(&funds(-5)).unwrap();
    let right = format!(
        r#"{{"balance":"-5","day":"2025-10-09","used":{{"*":3,"{CHUTE}":4}},"marks":{{"{}":12}}}}"#,
        Uuid::from_u128(1)
    );
    assert_eq!(text, right);
    for balance in [i128::MIN, -1, 0, i128::MAX] {
        let text = serde_json::to_string(&funds(balance)).unwrap();
        assert_eq!(serde_json::from_str::<FundsEntry>(&text).unwrap(), funds(balance));
    }
    assert!(serde_json::from_str::<FundsEntry>(&text.replace("-5", "0.5")).is_err());
}

#[test]
fn an_entry_is_a_hash_of_its_version_and_its_json() {
    let entry = Versioned { version: 42, entry: HotkeyEntry { user: None } };
    assert_eq!(entry.to_fields(), [("v", "42".to_owned()), ("d", r#"{"user":null}"#.to_owned())]);
    let fields = entry.to_fields().map(|(name, value)| (name.to_owned(), value)).into();
    assert_eq!(Versioned::from_fields(&fields).unwrap(), Some(entry));
}

#[test]
fn an_empty_hash_is_no_entry_and_half_a_hash_is_malformed() {
    let read = |fields: &[(&str, &str)]| {
        let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Versioned::<HotkeyEntry>::from_fields(&fields)
    };
    let entry = r#"{"user":null}"#;
    assert!(matches!(read(&[]), Ok(None)));
    assert!(matches!(read(&[("d", entry)]), Err(Malformed::Missing("v"))));
    assert!(matches!(read(&[("v", "1")]), Err(Malformed::Missing("d"))));
    assert!(matches!(read(&[("v", "-1"), ("d", entry)]), Err(Malformed::Version(text)) if text == "-1"));
    assert!(matches!(read(&[("v", "1"), ("d", "{}}")]), Err(Malformed::Entry(_))));
}

#[test]
fn permissions_are_the_bits_that_upstream_uses() {
    assert_eq!((permission::FREE_ACCOUNT, permission::UNLIMITED, permission::INVOICE_BILLING), (16, 32, 256));
}
