//! Tests of `slot`: what was written is read, and nothing else is.

use proptest::prelude::*;
use uuid::Uuid;

use super::*;

fn slots() -> impl Strategy<Value = Slot> {
    let counters =
        (any::<u64>(), any::<u64>(), any::<Option<u64>>(), any::<Option<u64>>(), any::<Option<u64>>(), any::<bool>());
    (any::<u128>(), 0_i64..4_000_000_000_000_000, counters).prop_map(|(invocation, updated, counters)| {
        let (chunks, bytes, prompt, completion, first_chunk_micros, delivered) = counters;
        Slot {
            invocation: InvocationId(Uuid::from_u128(invocation)),
            updated_at: DateTime::from_timestamp_micros(updated).unwrap(),
            counters: Counters { chunks, bytes, prompt, completion, first_chunk_micros, delivered },
        }
    })
}

#[test]
fn a_slot_never_used_holds_nothing() {
    assert_eq!(Slot::decode(&[0; SIZE]), None);
}

proptest! {
    #[test]
    fn what_was_written_is_read(slot in slots()) {
        prop_assert_eq!(Slot::decode(&slot.encode()), Some(slot));
    }

    #[test]
    fn a_slot_torn_between_two_writes_holds_nothing(old in slots(), new in slots(), cut in 1_usize..30) {
        let mut bytes = new.encode();
        bytes[cut..].copy_from_slice(&old.encode()[cut..]);
        prop_assume!(bytes != new.encode() && bytes != old.encode());
        prop_assert_eq!(Slot::decode(&bytes), None);
    }

    #[test]
    fn a_changed_slot_holds_nothing(slot in slots(), at in 0..SIZE, change in 1_u8..) {
        let mut bytes = slot.encode();
        bytes[at] ^= change;
        prop_assert_eq!(Slot::decode(&bytes), None);
    }
}
