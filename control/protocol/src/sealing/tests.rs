//! Tests of `sealing`: one known answer (PyCryptodome), and what must not open.

use uuid::uuid;

use super::*;

const INSTANCE: InstanceId = InstanceId(uuid!("6ba7b812-9dad-11d1-80b4-00c04fd430c8"));
const SEALED: &str = "AAECAwQFBgcICQoLRwPUGMHgxByFSJ2AveR2YgdhvTlbL/B4hIk/pN+31VE=";

fn directory_key() -> DirectoryKey {
    DirectoryKey(std::array::from_fn(|at| at as u8))
}

fn instance_key() -> InstanceKey {
    InstanceKey(std::array::from_fn(|at| at as u8))
}

#[test]
fn a_sealed_key_is_golden() {
    let nonce = std::array::from_fn(|at| at as u8);
    let sealed = directory_key().seal_with_nonce(&instance_key(), INSTANCE, 7, nonce);
    assert_eq!(sealed.0, SEALED);
    assert_eq!(serde_json::to_string(&sealed).unwrap(), format!("\"{SEALED}\""));
}

#[test]
fn a_sealed_key_opens_to_what_was_sealed() {
    let sealed = directory_key().seal(&instance_key(), INSTANCE, 7);
    let again = directory_key().seal(&instance_key(), INSTANCE, 7);
    let opened = directory_key().open(&sealed, INSTANCE, 7).ok().unwrap();
    assert_eq!(opened.reveal_hex(), "000102030405060708090a0b0c0d0e0f");
    assert_ne!(sealed, again);
}

#[test]
fn a_key_sealed_for_another_instance_version_or_directory_does_not_open() {
    let sealed = SealedKey(SEALED.into());
    assert!(directory_key().open(&sealed, INSTANCE, 7).is_ok());
    assert!(directory_key().open(&sealed, INSTANCE, 8).is_err());
    assert!(directory_key().open(&sealed, InstanceId::random(), 7).is_err());
    assert!(DirectoryKey([0; 32]).open(&sealed, INSTANCE, 7).is_err());
}

#[test]
fn a_changed_text_does_not_open() {
    let changed = SEALED.replacen("AAEC", "AAED", 1);
    for text in ["", "AAEC", "é", &SEALED[..56], &changed, &format!("{SEALED}AAAA")] {
        assert!(directory_key().open(&SealedKey(text.into()), INSTANCE, 7).is_err(), "{text}");
    }
}

#[test]
fn keys_are_hex_of_their_length() {
    assert_eq!(InstanceKey::from_hex(&"0f".repeat(16)).ok().unwrap().reveal_hex(), "0f".repeat(16));
    assert_eq!(InstanceKey::generate().reveal_hex().len(), 32);
    assert!(DirectoryKey::from_hex(&"0f".repeat(32)).is_ok());
    for text in [String::new(), "0f".repeat(15), "0f".repeat(17), "zz".repeat(16), "zz".repeat(32)] {
        assert!(InstanceKey::from_hex(&text).is_err());
        assert!(DirectoryKey::from_hex(&text).is_err());
    }
}
