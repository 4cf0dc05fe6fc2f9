//! Tests of `segment`: what was written is read, in pieces and around damage.

use super::*;
use crate::record::frame::{encode_admitted, encode_opened};
use crate::record::sample::admission;
use crate::record::simulator::disk::sound;
use crate::usage::Record;

#[test]
fn what_is_appended_is_read_in_pieces() {
    let disk = sound();
    let mut segment = Segment::create(&disk, 3, 1 << 20).unwrap();
    for after in 0..1200 {
        let mut frame = Vec::new();
        encode_opened(after, &mut frame);
        segment.append(&frame).unwrap();
    }
    let mut found = Vec::new();
    let (mut from, mut written) = (0, None);
    let stop = loop {
        let piece: Piece<Box<Record>> = read(&disk, 3, from, u64::MAX).unwrap();
        written = piece.written.or(written);
        assert!(piece.entries.len() <= ENTRIES);
        found.extend(piece.entries);
        from = piece.end;
        if let Some(stop) = piece.stop {
            break stop;
        }
    };
    assert_eq!(stop, Stop::End);
    assert_eq!(written, Some(segment.written()));
    assert_eq!(found, (0..1200).map(|after| Entry::Opened { after }).collect::<Vec<_>>());
}

/// A frame of exactly this many bytes.
fn frame_of(size: usize) -> Vec<u8> {
    let mut admission = admission(0);
    let mut frame = Vec::new();
    encode_admitted(&admission, &mut frame).unwrap();
    let padding = size - (frame.len() - admission.function.len());
    admission.function = "f".repeat(padding);
    frame.clear();
    encode_admitted(&admission, &mut frame).unwrap();
    assert_eq!(frame.len(), size);
    frame
}

#[test]
fn a_piece_that_ends_inside_a_length_goes_on_in_the_next() {
    let disk = sound();
    let mut segment = Segment::create(&disk, 1, 4 << 20).unwrap();
    segment.append(&frame_of(MAX_FRAME)).unwrap();
    segment.append(&frame_of(MAX_FRAME - 1)).unwrap();
    // Its length is 1024: the one byte of it in the first piece is a zero.
    segment.append(&frame_of(1032)).unwrap();
    let first: Piece<Box<Record>> = read(&disk, 1, 0, u64::MAX).unwrap();
    assert_eq!((first.entries.len(), first.stop), (2, None));
    let second: Piece<Box<Record>> = read(&disk, 1, first.end, u64::MAX).unwrap();
    assert_eq!((second.entries.len(), second.damaged, second.written), (1, 0, Some(segment.written())));
}

#[test]
fn a_full_segment_takes_no_more() {
    let disk = sound();
    let mut segment = Segment::create(&disk, 1, 4096).unwrap();
    segment.append(&[1; 4000]).unwrap();
    assert_eq!(segment.append(&[1; 97]).unwrap_err().kind(), io::ErrorKind::StorageFull);
    segment.append(&[1; 96]).unwrap();
    assert_eq!(disk.numbers().unwrap(), [1]);
}

#[test]
fn what_is_damaged_is_skipped_up_to_the_next_whole_frame() {
    for changed in [0_usize, 3, 5, 9, 40] {
        let disk = sound();
        let mut segment = Segment::create(&disk, 1, 4096).unwrap();
        for after in 1..=3 {
            let mut frame = Vec::new();
            encode_opened(after, &mut frame);
            segment.append(&frame).unwrap();
        }
        let byte = disk.read(1, changed as u64, 1).unwrap()[0];
        segment.file().write(&[byte ^ 0x40], changed as u64).unwrap();
        let piece = read(&disk, 1, 0, u64::MAX).unwrap();
        let lost = changed as u64 / 17 + 1;
        let left: Vec<Entry> = (1..=3).filter(|after| *after != lost).map(|after| Entry::Opened { after }).collect();
        let torn = u64::from(lost == 3);
        assert_eq!((piece.entries, piece.damaged), (left, 1 - torn), "byte {changed}");
        assert_eq!(piece.stop, Some(if torn == 1 { Stop::Torn } else { Stop::End }));
    }
}

#[test]
fn a_hole_of_zeros_between_frames_is_skipped_however_long() {
    let disk = sound();
    let segment = Segment::create(&disk, 1, 4 << 20).unwrap();
    for at in [0_u64, 40, (3 << 20) + 1] {
        let mut frame = Vec::new();
        encode_opened(at, &mut frame);
        segment.file().write(&frame, at).unwrap();
    }
    let (mut from, mut found, mut stop) = (0, Vec::new(), None);
    while stop.is_none() {
        let piece: Piece<Box<Record>> = read(&disk, 1, from, u64::MAX).unwrap();
        (from, stop) = (piece.end, piece.stop);
        found.extend(piece.entries);
    }
    assert_eq!(found, [0, 40, (3 << 20) + 1].map(|after| Entry::Opened { after }));
    assert_eq!(stop, Some(Stop::End));
}

#[test]
fn garbage_is_counted_in_each_piece_that_has_some_and_zeros_behind_everything_are_not() {
    let disk = sound();
    let segment = Segment::create(&disk, 1, 4 << 20).unwrap();
    let mut frame = Vec::new();
    encode_opened(7, &mut frame);
    segment.file().write(&frame, 0).unwrap();
    assert_eq!(read::<_, Record>(&disk, 1, 0, u64::MAX).unwrap().damaged, 0);
    segment.file().write(&vec![0xAA; 2 * PIECE], frame.len() as u64).unwrap();
    let (mut from, mut damaged, mut stop) = (0, Vec::new(), None);
    while stop.is_none() {
        let piece = read::<_, Record>(&disk, 1, from, u64::MAX).unwrap();
        (from, stop) = (piece.end, piece.stop);
        damaged.push(piece.damaged);
    }
    assert_eq!((&damaged[..3], stop), (&[1, 1, 1][..], Some(Stop::End)));
    assert!(damaged[3..].iter().all(|count| *count == 0));
}

#[test]
fn nothing_is_read_from_the_limit_on() {
    let disk = sound();
    let mut segment = Segment::create(&disk, 1, 1 << 20).unwrap();
    let mut frame = Vec::new();
    encode_opened(7, &mut frame);
    (0..3).for_each(|_| segment.append(&frame).unwrap());
    let length = frame.len() as u64;
    for (from, limit, entries, end) in [(0, 2 * length, 2, 2 * length), (length, 2 * length, 1, 2 * length)] {
        let piece = read::<_, Record>(&disk, 1, from, limit).unwrap();
        assert_eq!((piece.entries.len(), piece.end, piece.stop), (entries, end, Some(Stop::End)), "{from}..{limit}");
    }
}
