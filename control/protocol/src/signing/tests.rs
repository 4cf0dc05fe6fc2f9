//! Tests of `signing`: addresses and signatures against substrate-interface 1.8.1, refusals by tables.

use super::*;

mod forgeries;

const ALICE_SEED: &str = "e5be9a5092b81bca64be81d212e7f2f9eba183bb7a90954f7b76361f6edb5c0a";
const ALICE: &str = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY";
const ALICE_PUBLIC: &str = "d43593c715fdd31c61141abd04a99fd6822c8558854ccde39a5684e7a56da27d";
const BOB: &str = "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty";
/// The address of 32 zeros.
const NOBODY: &str = "5C4hrfjw9DjXZTzV3MwzrrAr9P1MJhSrvWGWqi1eSuyUpnhM";
const NOW: i64 = 1_700_000_000;
const BODY: &[u8] = b"{\"a\":1}";
const BODY_HASH: &str = "015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862";

/// Made by substrate-interface with Alice's key.
const BODY_SIGNATURE: &str = "f2cda9fd517d59bc60688567ff4fb340c19c4a233c64da0f4082a14b37b0471ecbc46d2fbb97872355a65fb392a71544c407a28a538d8b09c2f0c9df78c93987";
const PURPOSE_SIGNATURE: &str = "30aea3d0360dfb12c7cb9fc33d4b1d5a08fa1ff77fd1c2d4f5a5033c740a0b76099c69ef15cf946dd42800142e3bac0d05e89283571782f4e34934e0b2b84a8f";
const OUTWARD_SIGNATURE: &str = "dcc592046fbccf9ae0e2fd62b09ffde92a82c1f4c5ffc96bdc24136d2d24653110f571bc2ae0f3c789f39766e1dd9f327be316af80b1227b32c8e4351fbf1a87";

fn alice() -> Keypair {
    Keypair::from_seed_hex(ALICE_SEED).unwrap()
}

fn hotkey(text: &str) -> Hotkey {
    Hotkey::parse(text).unwrap()
}

fn signed(signature: &str) -> Signed<'_> {
    Signed { hotkey: ALICE, nonce: "1700000000", signature }
}

#[test]
fn an_address_stands_for_a_public_key() {
    let public: [u8; 32] = hex::decode(ALICE_PUBLIC).unwrap().try_into().unwrap();
    assert_eq!(hotkey(ALICE).public(), public);
    assert_eq!(Hotkey::from_public(public).as_str(), ALICE);
    assert_eq!(Hotkey::from_public([0; 32]).as_str(), NOBODY);
}

#[test]
fn a_text_that_is_no_address_is_refused() {
    let other_network = "15oF4uVJwmo4TdGW7VfQxNLavjCXviqxT9S1MgbjMNHr6Sp5";
    let changed = ALICE.replace("utQY", "utQZ");
    let long = ALICE.repeat(1000);
    for text in
        ["", "5", "0", &ALICE[..47], &ALICE[1..], other_network, &changed, &long, " ", "é", &format!("{ALICE} ")]
    {
        assert_eq!(Hotkey::parse(text), Err(InvalidHotkey), "{text}");
    }
}

#[test]
fn an_address_in_json_is_validated() {
    let text = format!("\"{ALICE}\"");
    assert_eq!(serde_json::to_string(&hotkey(ALICE)).unwrap(), text);
    assert_eq!(serde_json::from_str::<Hotkey>(&text).unwrap(), hotkey(ALICE));
    assert!(serde_json::from_str::<Hotkey>("\"5Grw\"").is_err());
}

#[test]
fn a_seed_gives_the_key_that_substrate_gives() {
    assert_eq!(alice().hotkey().as_str(), ALICE);
    assert_eq!(Keypair::from_seed_hex(&format!("0x{ALICE_SEED}")).unwrap().hotkey().as_str(), ALICE);
    assert!(Keypair::from_seed_hex("0x00").is_err());
    assert!(Keypair::from_seed_hex(&ALICE_SEED.replace('e', "g")).is_err());
}

#[test]
fn a_signature_fits_its_message_and_its_key() {
    let signature = alice().sign(b"hello");
    assert!(verify(&hotkey(ALICE), b"hello", &signature));
    assert!(!verify(&hotkey(ALICE), b"hallo", &signature));
    assert!(!verify(&hotkey(BOB), b"hello", &signature));
}

#[test]
fn a_signature_is_128_hex_digits_with_or_without_0x() {
    let signature = Signature::parse(BODY_SIGNATURE).unwrap();
    assert_eq!(signature.to_string(), BODY_SIGNATURE);
    assert!(Signature::parse(&format!("0x{BODY_SIGNATURE}")).unwrap() == signature);
    assert!(Signature::parse(&BODY_SIGNATURE.to_uppercase()).unwrap() == signature);
    for text in ["", "0x", &BODY_SIGNATURE[2..], &format!("{BODY_SIGNATURE}00"), &BODY_SIGNATURE.replace('f', "g")] {
        assert!(Signature::parse(text).is_err(), "{text}");
    }
}

#[test]
fn one_signature_has_one_digest_however_it_is_written() {
    let texts = [BODY_SIGNATURE.to_owned(), format!("0x{BODY_SIGNATURE}"), BODY_SIGNATURE.to_uppercase()];
    for text in texts {
        let proof = verify_inward(&signed(&text), Covers::Body(BODY), NOW).unwrap();
        assert_eq!(proof.digest().to_string(), "72f60d29bf963e96220dc73c65b05eef5161fa9a3174fefa7cea3d32d74d3ea2");
    }
}

#[test]
fn a_signature_verifies_in_one_encoding_only() {
    let message = inward_message(&hotkey(ALICE), "1700000000", Covers::Body(BODY));
    let bytes = *Signature::parse(BODY_SIGNATURE).unwrap().as_bytes();
    let encodings = (0..512).map(|bit| {
        let mut changed = bytes;
        changed[bit / 8] ^= 1 << (bit % 8);
        changed
    });
    for changed in encodings.chain([plus_order(bytes)]) {
        let signature = Signature::parse(&hex::encode(changed)).unwrap();
        assert!(!verify(&hotkey(ALICE), message.as_bytes(), &signature), "{signature}");
    }
}

/// The same scalar, written one group order higher.
fn plus_order(mut signature: [u8; 64]) -> [u8; 64] {
    let order = hex::decode("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010").unwrap();
    let mut carry = 0;
    for (byte, more) in signature[32..].iter_mut().zip(order) {
        let sum = u16::from(*byte) + u16::from(more) + carry;
        *byte = sum.to_le_bytes()[0];
        carry = sum >> 8;
    }
    signature
}

#[test]
fn the_key_that_everybody_has_signs_nothing() {
    let anybody = Signature::parse(&format!("{}80", "00".repeat(63))).unwrap();
    assert!(!verify(&hotkey(NOBODY), b"anything", &anybody));
}

#[test]
fn inward_messages_are_golden() {
    let body = inward_message(&hotkey(ALICE), "1700000000", Covers::Body(BODY));
    let purpose = inward_message(&hotkey(ALICE), "1700000000", Covers::Purpose("chutes"));
    assert_eq!(body, format!("{ALICE}:1700000000:{BODY_HASH}"));
    assert_eq!(purpose, format!("{ALICE}:1700000000:chutes"));
}

#[test]
fn inward_signatures_of_the_python_library_are_accepted() {
    let body = verify_inward(&signed(BODY_SIGNATURE), Covers::Body(BODY), NOW).unwrap();
    let purpose = verify_inward(&signed(PURPOSE_SIGNATURE), Covers::Purpose("chutes"), NOW).unwrap();
    assert_eq!(body.hotkey(), &hotkey(ALICE));
    assert_eq!(purpose.into_hotkey(), hotkey(ALICE));
}

#[test]
fn inward_refusals_name_the_part_that_is_wrong() {
    let right = signed(BODY_SIGNATURE);
    let table = [
        (Signed { hotkey: "5Grw", ..right }, Covers::Body(BODY), SignatureError::Hotkey),
        (Signed { hotkey: BOB, ..right }, Covers::Body(BODY), SignatureError::Signature),
        (Signed { nonce: "1700000001", ..right }, Covers::Body(BODY), SignatureError::Signature),
        (Signed { nonce: "1600000000", ..right }, Covers::Body(BODY), SignatureError::Nonce),
        (Signed { nonce: "now", ..right }, Covers::Body(BODY), SignatureError::Nonce),
        (Signed { signature: "zz", ..right }, Covers::Body(BODY), SignatureError::Signature),
        (right, Covers::Body(b"{}"), SignatureError::Signature),
        (right, Covers::Purpose("chutes"), SignatureError::Signature),
    ];
    for (signed, covers, error) in table {
        assert_eq!(verify_inward(&signed, covers, NOW).unwrap_err(), error, "{signed:?}");
    }
}

#[test]
fn whom_a_request_names_is_known_without_its_body_if_its_form_is_right() {
    let right = signed(BODY_SIGNATURE);
    assert_eq!(named_hotkey(&right, NOW), Ok(hotkey(ALICE)));
    assert_eq!(named_hotkey(&Signed { hotkey: BOB, ..right }, NOW), Ok(hotkey(BOB)), "it proves nothing");
    assert_eq!(named_hotkey(&Signed { hotkey: "5Grw", ..right }, NOW), Err(SignatureError::Hotkey));
    assert_eq!(named_hotkey(&Signed { nonce: "1600000000", ..right }, NOW), Err(SignatureError::Nonce));
    assert_eq!(named_hotkey(&Signed { signature: "zz", ..right }, NOW), Err(SignatureError::Signature));
}

#[test]
fn a_nonce_is_fresh_inside_the_window_to_both_sides() {
    let table = [
        ("1700000000", NOW, 600, true),
        ("1700000599", NOW, 600, true),
        ("1699999401", NOW, 600, true),
        ("1700000600", NOW, 600, false),
        ("1699999400", NOW, 600, false),
        ("0", 0, 1, true),
        ("0", 0, 0, false),
        ("0", 0, -1, false),
        ("", NOW, 600, false),
        ("-5", 0, 600, false),
        ("+1700000000", NOW, 600, false),
        (" 1700000000", NOW, 600, false),
        ("1700000000.0", NOW, 600, false),
        ("1.7e9", NOW, 600, false),
        ("١", 1, 600, false),
        ("9223372036854775807", i64::MIN, i64::MAX, false),
        ("9223372036854775808", i64::MAX, i64::MAX, false),
        ("99999999999999999999999999", NOW, 600, false),
    ];
    for (nonce, now, window, fresh) in table {
        assert_eq!(nonce_is_fresh(nonce, now, window), fresh, "{nonce} {now} {window}");
    }
}

#[test]
fn outward_messages_are_golden() {
    let body = outward_message(&hotkey(BOB), &hotkey(ALICE), NOW, Covers::Body(BODY));
    let purpose = outward_message(&hotkey(BOB), &hotkey(ALICE), NOW, Covers::Purpose("chutes"));
    assert_eq!(body, format!("{BOB}:{ALICE}:1700000000:{BODY_HASH}"));
    assert_eq!(purpose, format!("{BOB}:{ALICE}:1700000000:chutes"));
}

#[test]
fn outward_headers_are_what_the_miner_accepts() {
    let [miner, validator, nonce, signature] = outward_headers(&hotkey(BOB), &alice(), NOW, Covers::Body(BODY));
    assert_eq!(miner, ("x-chutes-miner", BOB.to_owned()));
    assert_eq!(validator, ("x-chutes-validator", ALICE.to_owned()));
    assert_eq!(nonce, ("x-chutes-nonce", "1700000000".to_owned()));
    assert_eq!(signature.0, "x-chutes-signature");
    let signed = OutwardSigned { miner: BOB, validator: ALICE, nonce: "1700000000", signature: &signature.1 };
    assert_eq!(verify_outward(&signed, &hotkey(BOB), &hotkey(ALICE), Covers::Body(BODY), NOW + 29, 30), Ok(()));
}

#[test]
fn an_outward_signature_of_the_python_library_is_accepted_and_changes_are_not() {
    let right = OutwardSigned { miner: BOB, validator: ALICE, nonce: "1700000000", signature: OUTWARD_SIGNATURE };
    let table = [
        (right, NOW, Ok(())),
        (right, NOW + 30, Err(SignatureError::Nonce)),
        (OutwardSigned { miner: ALICE, ..right }, NOW, Err(SignatureError::Hotkey)),
        (OutwardSigned { validator: BOB, ..right }, NOW, Err(SignatureError::Hotkey)),
        (OutwardSigned { nonce: "1700000001", ..right }, NOW, Err(SignatureError::Signature)),
        (OutwardSigned { signature: BODY_SIGNATURE, ..right }, NOW, Err(SignatureError::Signature)),
    ];
    for (signed, now, expected) in table {
        let result = verify_outward(&signed, &hotkey(BOB), &hotkey(ALICE), Covers::Body(BODY), now, 30);
        assert_eq!(result, expected, "{signed:?}");
    }
}
