//! Signatures and keys that must not pass: other encodings of the right numbers, other contexts, other keys, damage.

use proptest::prelude::*;
use schnorrkel::{ExpansionMode, MiniSecretKey};

use super::*;

/// The prime of the field, 2^255 - 19, little endian.
const PRIME: [u8; 32] = {
    let mut prime = [0xff; 32];
    prime[0] = 0xed;
    prime[31] = 0x7f;
    prime
};

/// The order of the group, little endian.
const ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

fn plus(left: [u8; 32], right: [u8; 32]) -> [u8; 32] {
    let mut carry = 0;
    std::array::from_fn(|place| {
        let sum = u16::from(left[place]) + u16::from(right[place]) + carry;
        carry = sum >> 8;
        sum.to_le_bytes()[0]
    })
}

fn minus(left: [u8; 32], right: [u8; 32]) -> [u8; 32] {
    let mut borrow = 0;
    std::array::from_fn(|place| {
        let difference = i16::from(left[place]) - i16::from(right[place]) - borrow;
        borrow = i16::from(difference < 0);
        difference.rem_euclid(256).to_le_bytes()[0]
    })
}

/// Point, scalar with its mark, of a signature.
fn halves(signature: &Signature) -> ([u8; 32], [u8; 32]) {
    let (point, scalar) = signature.as_bytes().split_at(32);
    (point.try_into().unwrap(), scalar.try_into().unwrap())
}

fn joined(point: [u8; 32], scalar: [u8; 32]) -> Signature {
    Signature::parse(&hex::encode([point, scalar].concat())).unwrap()
}

#[test]
fn the_arithmetic_of_these_tests_is_right() {
    assert_eq!(minus(plus(PRIME, ORDER), ORDER), PRIME);
    assert_eq!(plus(minus(PRIME, ORDER), ORDER), PRIME);
}

proptest! {
    #[test]
    fn another_encoding_of_the_same_signature_is_refused(seed: [u8; 32], message: Vec<u8>) {
        let key = Keypair::from_seed(seed);
        let signature = key.sign(&message);
        prop_assert!(verify(key.hotkey(), &message, &signature));
        let (point, scalar) = halves(&signature);
        let unmarked = { let mut scalar = scalar; scalar[31] &= 0x7f; scalar };
        let mark = |mut scalar: [u8; 32]| { scalar[31] |= 0x80; scalar };
        let others = [
            joined(point, unmarked),
            joined(point, mark(plus(unmarked, ORDER))),
            joined(point, mark(minus(ORDER, unmarked))),
            joined(minus(PRIME, point), scalar),
            joined(plus(point, PRIME), scalar),
            joined({ let mut point = point; point[31] |= 0x80; point }, scalar),
            joined(scalar, point),
            joined([0; 32], scalar),
            joined(point, mark([0; 32])),
            joined([0; 32], mark([0; 32])),
        ];
        for (place, other) in others.iter().enumerate() {
            prop_assert!(!verify(key.hotkey(), &message, other), "form {place}");
        }
    }

    #[test]
    fn a_key_in_another_encoding_is_nobodys(seed: [u8; 32], message: Vec<u8>) {
        let key = Keypair::from_seed(seed);
        let signature = key.sign(&message);
        let public = key.hotkey().public();
        for other in [minus(PRIME, public), plus(public, PRIME), PRIME, [0xff; 32], [0; 32]] {
            prop_assert!(!verify(&Hotkey::from_public(other), &message, &signature));
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_is_refused(seed: [u8; 32], message in prop::collection::vec(any::<u8>(), 1..64), at: usize) {
        let key = Keypair::from_seed(seed);
        let signature = key.sign(&message);
        let flip = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            let place = at % (bytes.len() * 8);
            bytes[place / 8] ^= 1 << (place % 8);
            bytes
        };
        prop_assert!(!verify(key.hotkey(), &flip(&message), &signature));
        let flipped = Signature::parse(&hex::encode(flip(signature.as_bytes()))).unwrap();
        prop_assert!(!verify(key.hotkey(), &message, &flipped));
        let public: [u8; 32] = flip(&key.hotkey().public()).try_into().unwrap();
        prop_assert!(!verify(&Hotkey::from_public(public), &message, &signature));
    }

    #[test]
    fn another_key_or_another_message_is_refused(seeds: [[u8; 32]; 2], messages: [Vec<u8>; 2]) {
        prop_assume!(seeds[0] != seeds[1] && messages[0] != messages[1]);
        let [key, other] = seeds.map(Keypair::from_seed);
        let signature = key.sign(&messages[0]);
        prop_assert!(!verify(other.hotkey(), &messages[0], &signature));
        prop_assert!(!verify(key.hotkey(), &messages[1], &signature));
        // Half of one signature with half of another.
        let (point, scalar) = (halves(&signature).0, halves(&key.sign(&messages[0])).1);
        prop_assert!(!verify(key.hotkey(), &messages[0], &joined(point, scalar)));
    }

    #[test]
    fn random_bytes_are_no_signature(seed: [u8; 32], bytes: [[u8; 32]; 2], message: Vec<u8>) {
        prop_assert!(!verify(Keypair::from_seed(seed).hotkey(), &message, &joined(bytes[0], bytes[1])));
    }
}

#[test]
fn a_signature_in_another_context_is_refused() {
    let pair = MiniSecretKey::from_bytes(&[7; 32]).unwrap().expand_to_keypair(ExpansionMode::Ed25519);
    let hotkey = Hotkey::from_public(pair.public.to_bytes());
    let signed_in = |context: &[u8]| {
        let signature = pair.sign_simple(context, b"message").to_bytes();
        Signature::parse(&hex::encode(signature)).unwrap()
    };
    assert!(verify(&hotkey, b"message", &signed_in(b"substrate")));
    for context in [&b""[..], b"Substrate", b"substrate ", b"signing", b"polkadot"] {
        assert!(!verify(&hotkey, b"message", &signed_in(context)));
    }
}

#[test]
fn a_signature_that_is_cut_or_longer_is_no_text_of_one() {
    for length in (0..128).chain(129..140) {
        let text = BODY_SIGNATURE.repeat(2)[..length].to_owned();
        assert!(Signature::parse(&text).is_err(), "{length} digits");
        assert!(Signature::parse(&format!("0x{text}")).is_err(), "0x and {length} digits");
    }
}
