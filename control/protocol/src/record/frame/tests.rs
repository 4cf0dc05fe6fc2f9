//! Tests of `frame`: any cut or change of a log gives a prefix of its entries, never another entry.

use proptest::prelude::*;

use super::*;
use crate::record::sample::{admission, record};

fn log(entries: &[Entry]) -> (Vec<u8>, Vec<usize>) {
    let mut bytes = Vec::new();
    let mut ends = Vec::new();
    for entry in entries {
        match entry {
            Entry::Opened { after } => encode_opened(*after, &mut bytes),
            Entry::Skipped { through } => encode_skipped(*through, &mut bytes),
            Entry::Admitted(admission) => encode_admitted(admission, &mut bytes).unwrap(),
            Entry::Final { sequence, record } => encode_final(*sequence, record, &mut bytes).unwrap(),
        }
        ends.push(bytes.len());
    }
    (bytes, ends)
}

fn sample() -> Vec<Entry> {
    let first = admission(0);
    let second = admission(1);
    vec![
        Entry::Opened { after: 40 },
        Entry::Admitted(Box::new(first.clone())),
        Entry::Admitted(Box::new(second.clone())),
        Entry::Final { sequence: 41, record: Box::new(record(second)) },
        Entry::Final { sequence: 42, record: Box::new(record(first)) },
    ]
}

fn read(bytes: &[u8]) -> (Vec<Entry>, Stop) {
    let mut reader = Reader::new(bytes);
    let mut entries = Vec::new();
    loop {
        match reader.next_entry() {
            Ok(entry) => entries.push(entry),
            Err(stop) => {
                assert_eq!(reader.next_entry::<Box<Record>>(), Err(stop), "asking again changed the answer");
                return (entries, stop);
            }
        }
    }
}

#[test]
fn the_bytes_of_a_frame_are_fixed() {
    let mut bytes = Vec::new();
    encode_opened(258, &mut bytes);
    assert_eq!(hex::encode(&bytes), "09000000240c2015010201000000000000");
}

#[test]
fn what_was_written_is_read() {
    let entries = sample();
    let (mut bytes, _) = log(&entries);
    assert_eq!(read(&bytes), (entries.clone(), Stop::End));
    bytes.resize(bytes.len() + 4096, 0);
    assert_eq!(read(&bytes), (entries, Stop::End));
}

#[test]
fn a_frame_that_is_too_large_is_refused_and_leaves_nothing() {
    let mut large = admission(0);
    large.function = "f".repeat(MAX_FRAME);
    let mut bytes = vec![1, 2, 3];
    assert!(encode_admitted(&large, &mut bytes).is_err());
    assert_eq!(bytes, [1, 2, 3]);
}

#[test]
fn a_length_out_of_bounds_is_torn() {
    for length in [1_u32, 8, u32::try_from(MAX_FRAME).unwrap(), u32::MAX] {
        let mut bytes = length.to_le_bytes().to_vec();
        bytes.resize(64, 7);
        assert_eq!(read(&bytes), (vec![], Stop::Torn), "{length}");
    }
}

#[test]
fn a_whole_frame_of_another_kind_is_unreadable() {
    let mut bytes = Vec::new();
    let start = begin(99, 1, &mut bytes);
    finish(start, &mut bytes).unwrap();
    assert_eq!(read(&bytes), (vec![], Stop::Unreadable));
}

proptest! {
    #[test]
    fn a_cut_log_gives_its_whole_frames(cut in 0_usize..4000) {
        let entries = sample();
        let (bytes, ends) = log(&entries);
        let cut = cut.min(bytes.len());
        let whole = ends.iter().filter(|end| **end <= cut).count();
        let stop = if ends.contains(&cut) || cut == 0 { Stop::End } else { Stop::Cut };
        prop_assert_eq!(read(&bytes[..cut]), (entries[..whole].to_vec(), stop));
    }

    #[test]
    fn a_log_cut_before_zeros_gives_its_whole_frames(cut in 0_usize..4000) {
        let entries = sample();
        let (mut bytes, ends) = log(&entries);
        let cut = cut.min(bytes.len());
        let whole = ends.iter().filter(|end| bytes[cut.min(**end)..**end].iter().all(|byte| *byte == 0)).count();
        bytes.truncate(cut);
        bytes.resize(cut + 8192, 0);
        let (found, stop) = read(&bytes);
        prop_assert_eq!(found, entries[..whole].to_vec());
        prop_assert!(matches!(stop, Stop::End | Stop::Torn));
    }

    #[test]
    fn a_changed_byte_ends_the_log_before_its_frame(at in 0_usize..4000, change in 1_u8..) {
        let entries = sample();
        let (mut bytes, ends) = log(&entries);
        let at = at.min(bytes.len() - 1);
        bytes[at] ^= change;
        let before = ends.iter().filter(|end| **end <= at).count();
        let (found, stop) = read(&bytes);
        prop_assert_eq!(found, entries[..before].to_vec());
        prop_assert!(stop != Stop::Unreadable);
    }

    #[test]
    fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        read(&bytes);
    }
}

#[test]
fn a_record_is_passed_on_byte_for_byte() {
    let mut as_of_old = serde_json::to_value(record(admission(0))).unwrap();
    as_of_old["dropped_since"] = serde_json::json!({"a": [1.50, "\u{1}"]});
    let mut bytes = Vec::new();
    encode(FINAL, 7, &as_of_old, &mut bytes).unwrap();
    let entry = Reader::new(&bytes).next_entry::<crate::usage::Written>().unwrap();
    let Entry::Final { sequence: 7, record: written } = entry else { panic!("{entry:?}") };
    assert_eq!(written.get(), as_of_old.to_string());
    let fields =
        crate::usage::Entry::Final { writer: crate::ids::WriterId::random(), sequence: 7, record: written }.to_fields();
    assert!(fields.contains(&("r", as_of_old.to_string())), "{fields:?}");
}
