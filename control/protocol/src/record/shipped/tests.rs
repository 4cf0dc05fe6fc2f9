//! Tests of `shipped`: what comes next, and when the end is told.

use std::sync::{Arc, Mutex};

use chrono::DateTime;

use super::*;
use crate::ids::WriterId;
use crate::record::book::Book;
use crate::record::simulator::disk::{SimulatedDisk, sound};

/// A log with the sequences from 4 to 9, in the segments 2 and 3.
fn log() -> Shipped<SimulatedDisk> {
    let mut book = Book::default();
    book.opened(2, 3);
    book.noted(6, DateTime::UNIX_EPOCH);
    book.opened(3, 6);
    book.noted(9, DateTime::UNIX_EPOCH);
    Shipped::new(Stored { writer: WriterId::random(), disk: sound(), book: Arc::new(Mutex::new(book)) }, false)
}

/// The sequence that is looked for, and in which segment.
fn found(shipped: &Shipped<SimulatedDisk>) -> Option<(u64, u64)> {
    match shipped.locate() {
        Located::At(cursor) => Some((cursor.next, cursor.position.segment)),
        Located::Nothing | Located::Deleted(_) => None,
    }
}

#[test]
fn what_comes_next_is_looked_for_in_its_segment_until_everything_was_sent() {
    let mut shipped = log();
    for (sent, next) in [(3, Some((4, 2))), (6, Some((7, 3))), (8, Some((9, 3))), (9, None)] {
        shipped.shipment.sent(sent, std::time::Duration::ZERO);
        assert_eq!(found(&shipped), next, "{sent} sent");
    }
    assert!(matches!(shipped.locate(), Located::Nothing));
}

#[test]
fn where_the_last_batch_ended_is_used_only_for_what_follows_it() {
    let mut shipped = log();
    let position = Position { segment: 2, offset: 77 };
    for (next, segment, offset) in [(4, 2, 77), (5, 2, 0)] {
        shipped.cursor = Some(Cursor { next, position });
        let Located::At(cursor) = shipped.locate() else { panic!("there is more") };
        assert_eq!((cursor.next, cursor.position), (4, Position { segment, offset }));
    }
}

#[test]
fn what_was_deleted_and_is_wanted_again_is_told_as_a_gap_up_to_what_is_there() {
    let mut shipped = log();
    shipped.shipment.confirmed(Some(1), 9, std::time::Duration::ZERO);
    let Located::Deleted(Entry::Gap { from, through, damaged, .. }) = shipped.locate() else { panic!("it is there") };
    assert_eq!((from, through, damaged), (2, 3, true));
}

#[test]
fn the_end_is_told_once_all_is_sent_and_again_each_second_until_it_is_heard() {
    let mut shipped = log();
    shipped.shipment.sent(8, std::time::Duration::ZERO);
    assert!(!shipped.says_farewell(9, true), "one is not sent yet");
    shipped.shipment.sent(9, std::time::Duration::ZERO);
    assert!(shipped.says_farewell(9, false));
    shipped.farewell = Farewell::Said;
    assert!(shipped.says_farewell(9, true) && !shipped.says_farewell(9, false));
    shipped.farewell = Farewell::Heard;
    assert!(!shipped.says_farewell(9, true));
}

#[test]
fn the_end_is_heard_once_everything_before_it_is_stored() {
    let mut shipped = log();
    let beat = Beat { clock: DateTime::UNIX_EPOCH, sequence: 9, closed: true };
    assert_eq!(shipped.farewell_after(&beat), Farewell::Said);
    shipped.shipment.confirmed(Some(9), 9, std::time::Duration::ZERO);
    assert_eq!(shipped.farewell_after(&beat), Farewell::Heard);
}
