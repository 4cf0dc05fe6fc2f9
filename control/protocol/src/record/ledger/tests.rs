//! Tests of `ledger`: each attempt once, the first final stands, beats wait for what they speak of.

use super::*;
use crate::record::batch::RawEntry;
use crate::record::sample::{admission, record};
use crate::usage::{Entry, Record};

fn batch(entries: &[Entry]) -> Batch {
    let raw = |entry: &Entry| {
        let fields = entry.to_fields().into_iter();
        RawEntry { id: "1-0".into(), fields: fields.map(|(name, value)| (name.into(), value.into())).collect() }
    };
    Batch::read(&entries.iter().map(raw).collect::<Vec<_>>())
}

fn entry(writer: WriterId, sequence: u64, record: &Record) -> Entry {
    Entry::Final { writer, sequence, record: Box::new(record.clone()) }
}

#[test]
fn an_attempt_is_new_once_and_what_differs_is_counted() {
    let writer = WriterId::random();
    let (first, second) = (record(admission(0)), record(admission(1)));
    let mut other = first.clone();
    other.delivered = false;
    let read = batch(&[entry(writer, 1, &first), entry(writer, 2, &first), entry(writer, 3, &other)]);
    let found = attempts(&read, read.first_finals(), |_| None);
    assert_eq!((found.new.len(), found.repeated, found.contradicted), (1, 1, 1));
    let (key, hash) = (read.finals[0].attempt(), read.finals[0].hash);
    let held = |asked: &AttemptKey| (*asked == key).then_some(hash.as_slice());
    let read = batch(&[entry(writer, 4, &second), entry(writer, 5, &first)]);
    let found = attempts(&read, read.first_finals(), held);
    assert_eq!((found.new[0].sequence, found.new.len(), found.repeated, found.contradicted), (4, 1, 1, 0));
    let read = batch(&[entry(writer, 6, &other)]);
    let found = attempts(&read, read.first_finals(), held);
    assert_eq!((found.new.len(), found.repeated, found.contradicted), (0, 0, 1));
}

#[test]
fn a_beat_is_heard_with_what_it_speaks_of_and_a_gap_counts_as_stored() {
    let writer = WriterId::random();
    let start = admission(0).started_at;
    let beat = |second, sequence| Entry::Beat {
        writer,
        beat: Beat { clock: start + chrono::TimeDelta::seconds(second), sequence, closed: false },
    };
    let mut known = BTreeMap::from([(writer, LogWriter::new(start))]);
    advance(&batch(&[beat(5, 3), entry(writer, 1, &record(admission(0)))]), &mut known);
    assert_eq!((known[&writer].mark, known[&writer].clock), (1, start));
    let gap = Entry::Gap { writer, from: 2, through: 3, damaged: false };
    advance(&batch(&[beat(6, 3), gap]), &mut known);
    assert_eq!((known[&writer].mark, known[&writer].clock), (3, start + chrono::TimeDelta::seconds(6)));
}

#[test]
fn only_what_the_mark_covers_is_known_to_be_stored() {
    let (writer, stranger) = (WriterId::random(), WriterId::random());
    let start = admission(0).started_at;
    let sent = |writer, sequence| entry(writer, sequence, &record(admission(0)));
    let read = batch(&[sent(writer, 2), sent(writer, 3), sent(stranger, 1)]);
    let known = BTreeMap::from([(writer, LogWriter { mark: 2, ..LogWriter::new(start) })]);
    let stored: Vec<_> = marked(&read.first_finals().0, &known).iter().map(|entry| entry.sequence).collect();
    assert_eq!(stored, [2]);
}

#[test]
fn a_writer_is_closed_once_everything_before_its_farewell_is_stored_and_its_clock_never_goes_back() {
    let start = admission(0).started_at;
    let later = start + chrono::TimeDelta::seconds(5);
    let beat = |clock, sequence, closed| Beat { clock, sequence, closed };
    let mut writer = LogWriter { mark: 2, ..LogWriter::new(start) };
    writer.hear(&beat(later, 3, true));
    assert_eq!((writer.clock, writer.closed), (start, false));
    writer.hear(&beat(later, 2, true));
    assert_eq!((writer.clock, writer.closed), (later, true));
    writer.hear(&beat(start, 2, false));
    assert_eq!((writer.clock, writer.closed), (later, true));
}
