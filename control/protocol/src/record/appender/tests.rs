//! Tests of `appender`: how much surely fits, and what is taken back.

use super::*;
use crate::record::simulator::disk::{SimulatedDisk, sound};

const SIZE: u64 = 64 * 1024;
/// What a segment holds beside the frame that opens it.
const ROOM: u64 = SIZE - OVERHEAD as u64;

/// An appender with so many segments of this size in reserve.
fn with_reserve(spares: u64, size: u64) -> Appender<SimulatedDisk> {
    let disk = sound();
    let spares = (1..=spares).map(|number| Segment::create(&disk, number, size).unwrap()).collect();
    Appender::new(disk, spares, 9, 0)
}

fn bytes(size: usize) -> impl FnOnce(&mut Vec<u8>) -> Result<(), TooLarge> {
    move |out| {
        out.resize(out.len() + size, 1);
        Ok(())
    }
}

#[test]
fn what_surely_fits_leaves_out_what_no_frame_may_fill_at_the_end_of_a_segment() {
    let mut appender = with_reserve(2, SIZE);
    assert_eq!(appender.room_after(0), Some(2 * (ROOM - LARGEST)));
    assert_eq!(appender.room_after(100), Some(2 * (ROOM - LARGEST) - 100));
    assert_eq!(appender.room_after(2 * ROOM), None);
    appender.roll(&mut Book::default()).unwrap();
    let spare = ROOM - LARGEST;
    assert_eq!(appender.room_after(100), Some(spare + ROOM - 100 - LARGEST));
    assert_eq!(appender.room_after(ROOM), Some(spare), "the rest of the present segment is used up");
    assert_eq!(appender.room_after(ROOM + 1), spare.checked_sub(ROOM + 1), "it goes into the next one");
}

#[test]
fn the_last_frame_is_taken_back_if_it_was_not_written() {
    let mut appender = with_reserve(1, SIZE);
    assert_eq!(appender.push(bytes(10)).unwrap(), 10);
    assert_eq!(appender.push(bytes(20)).unwrap(), 20);
    assert!(appender.waits());
    appender.pop(20);
    assert_eq!(appender.unsynced(), 10);
    appender.pop(99);
    assert!(appender.unsynced() == 0 && !appender.waits());
}

#[test]
fn a_frame_fills_a_segment_to_its_end() {
    // Eight frames of the kind that opens it.
    let mut appender = with_reserve(2, 8 * OVERHEAD as u64);
    let mut book = Book::default();
    let mut opened = Vec::new();
    encode_opened(0, &mut opened);
    let push = |appender: &mut Appender<SimulatedDisk>| {
        let frame = |out: &mut Vec<u8>| {
            out.extend(&opened);
            Ok(())
        };
        appender.push(frame).unwrap();
    };
    (0..7).for_each(|_| push(&mut appender));
    appender.flush(&mut book).unwrap();
    assert_eq!((appender.position().segment, appender.spares()), (1, 1));
    push(&mut appender);
    appender.flush(&mut book).unwrap();
    assert_eq!((appender.position().segment, appender.spares()), (2, 0));
    assert_eq!(appender.position().offset, 2 * opened.len() as u64);
}

#[test]
fn numbers_go_up() {
    let mut appender = with_reserve(0, SIZE);
    assert_eq!([appender.number(), appender.number(), appender.number()], [9, 10, 11]);
}
