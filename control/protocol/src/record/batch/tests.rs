//! What is read, what is put aside, what is the first of its kind.

use super::*;
use crate::record::sample::{admission, record};
use crate::usage::Facts;
use chrono::TimeDelta;

fn writer() -> WriterId {
    "6ba7b812-9dad-11d1-80b4-00c04fd430c8".parse().unwrap()
}

fn raw(id: &str, fields: &[(&str, &[u8])]) -> RawEntry {
    let fields = fields.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.to_vec())).collect();
    RawEntry { id: id.into(), fields }
}

fn entry(id: &str, entry: &Entry) -> RawEntry {
    let fields = entry.to_fields();
    let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
    raw(id, &fields)
}

fn at(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_767_225_600, 0).unwrap() + TimeDelta::seconds(second)
}

fn attempt(sequence: u64, tt: f64) -> Entry {
    let mut record = record(admission(10));
    record.facts = Facts { tt, ..Facts::default() };
    Entry::Final { writer: writer(), sequence, record: Box::new(record) }
}

#[test]
fn finals_and_beats_are_read() {
    let beat = Beat { clock: at(3), sequence: 9, closed: false };
    let entries = [entry("1-0", &attempt(4, 2.0)), entry("2-0", &Entry::Beat { writer: writer(), beat })];
    let batch = Batch::read(&entries);
    assert_eq!((batch.finals.len(), batch.finals[0].sequence), (1, 4));
    assert_eq!(batch.beats, [(writer(), beat)]);
    assert!(batch.rejects.is_empty());
    assert_eq!(batch.sequences(), BTreeMap::from([(writer(), vec![4..=4])]));
    assert_eq!(batch.earliest(), Some(at(3)));
}

#[test]
fn what_nobody_can_read_is_kept_with_its_text_and_its_place() {
    let good = writer().to_string();
    let entries = [
        raw("1-0", &[("w", good.as_bytes()), ("s", b"5"), ("r", b"{\"call\":")]),
        raw("2-0", &[("w", good.as_bytes()), ("s", b"9223372036854775808"), ("r", b"{}")]),
        raw("3-0", &[("w", b"nobody"), ("s", b"5"), ("r", b"{}")]),
        raw("4-0", &[("w", &[0xff]), ("\0", b"x")]),
        raw(
            "5-0",
            &[("w", good.as_bytes()), ("b", b"{\"clock\":1,\"sequence\":18446744073709551615,\"closed\":false}")],
        ),
        raw("6-0", &[("r", b"{}")]),
    ];
    let batch = Batch::read(&entries);
    assert_eq!((batch.finals.len(), batch.beats.len(), batch.rejects.len()), (0, 0, 6));
    assert_eq!((batch.rejects[0].writer, batch.rejects[0].sequence), (Some(writer()), Some(5)));
    assert_eq!(batch.rejects[0].raw, format!("w={good}\ns=5\nr={{\"call\":\n").into_bytes());
    assert_eq!(batch.rejects[1].sequence, None);
    assert!(batch.rejects.iter().all(|reject| !reject.reason.is_empty() && !reject.reason.contains('\0')));
    assert_eq!(batch.sequences(), BTreeMap::from([(writer(), vec![5..=5])]));
}

#[test]
fn a_gap_lets_the_mark_pass_and_damage_is_kept() {
    let gap = |from, through, damaged| Entry::Gap { writer: writer(), from, through, damaged };
    let entries = [
        entry("1-0", &gap(4, 9, true)),
        entry("2-0", &gap(10, 4_294_967_295, false)),
        entry("3-0", &gap(9, 8, false)),
        entry("4-0", &gap(9, u64::MAX, false)),
    ];
    let batch = Batch::read(&entries);
    assert_eq!(batch.gaps, [(writer(), 4..=9), (writer(), 10..=4_294_967_295)]);
    let ids: Vec<&str> = batch.rejects.iter().map(|reject| reject.id.as_str()).collect();
    assert_eq!(ids, ["1-0", "3-0", "4-0"]);
    assert_eq!(batch.rejects[0].sequence, Some(4));
    assert_eq!(crate::record::marks::advance(3, batch.sequences().remove(&writer()).unwrap()), 4_294_967_295);
}

#[test]
fn an_entry_that_is_gone_from_redis_says_nothing() {
    let batch = Batch::read(&[raw("1-0", &[])]);
    assert!(batch.finals.is_empty() && batch.beats.is_empty() && batch.rejects.is_empty());
}

#[test]
fn the_first_final_of_an_attempt_stands_and_a_different_one_is_counted() {
    let first = record(admission(10));
    let mut other = first.clone();
    other.delivered = false;
    let last = |sequence, record| Entry::Final { writer: writer(), sequence, record: Box::new(record) };
    let entries = [entry("1-0", &last(4, first.clone())), entry("2-0", &last(5, first)), entry("3-0", &last(6, other))];
    let batch = Batch::read(&entries);
    let (finals, contradictions) = batch.first_finals();
    assert_eq!((finals.len(), finals[0].sequence, contradictions), (1, 4, 1));
}

#[test]
fn an_entry_that_cannot_be_stored_is_put_aside_alone_with_the_reason() {
    let batch = Batch::rejecting(&entry("7-1", &attempt(4, 2.0)), "no such chute");
    let [reject] = &batch.rejects[..] else { panic!("one is put aside") };
    assert_eq!((reject.writer, reject.sequence), (Some(writer()), Some(4)));
    assert_eq!(batch.sequences(), BTreeMap::from([(writer(), vec![4..=4])]), "its sequence is dealt with");
    assert!(batch.finals.is_empty() && batch.beats.is_empty() && batch.gaps.is_empty());
}
