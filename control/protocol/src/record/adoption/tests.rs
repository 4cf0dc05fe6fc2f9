//! Tests of `adoption`: done again, it changes nothing; it writes only behind what was written.

use std::sync::{Arc, Mutex};

use super::*;
use crate::ids::WriterId;
use crate::record::reader::Stored;
use crate::record::sample::{admission, record};
use crate::record::simulator::chance::Chance;
use crate::record::simulator::disk::{SimulatedDisk, failing, sound};
use crate::usage::{self, Admission};

/// The sequences of a log's second life begin here.
const SECOND: u64 = 1 << 32;

/// A dead writer with segments of the given admissions; none is a segment of zeros.
fn dead(segments: &[Option<Admission>]) -> SimulatedDisk {
    let disk = sound();
    fill(&disk, segments);
    disk
}

fn fill(disk: &SimulatedDisk, segments: &[Option<Admission>]) {
    for (number, admission) in (1..).zip(segments) {
        let mut segment = Segment::create(disk, number, 64 * 1024).unwrap();
        let mut bytes = Vec::new();
        if let Some(admission) = admission {
            frame::encode_opened(0, &mut bytes);
            frame::encode_admitted(admission, &mut bytes).unwrap();
        }
        segment.append(&bytes).unwrap();
    }
}

/// Everything that is shipped of an adopted log.
fn shipped(disk: &SimulatedDisk, adoption: Adoption) -> Vec<usage::Entry<Written>> {
    let (writer, book) = (WriterId::random(), Arc::new(Mutex::new(adoption.book)));
    let stored = Stored { writer, disk: disk.clone(), book };
    let start = stored.book().holding(1).unwrap();
    let mut batch = stored.read(start, 1).unwrap();
    let mut found = Vec::new();
    while !batch.entries.is_empty() {
        let (position, next) = (batch.position, batch.next);
        found.append(&mut batch.entries);
        batch = stored.read(position, next).unwrap();
    }
    found
}

/// The finals among them.
fn finals(disk: &SimulatedDisk, adoption: Adoption) -> Vec<u64> {
    let sequence = |entry| match entry {
        usage::Entry::Final { sequence, .. } => Some(sequence),
        usage::Entry::Gap { .. } | usage::Entry::Beat { .. } => None,
    };
    shipped(disk, adoption).into_iter().filter_map(sequence).collect()
}

#[test]
fn a_hole_between_segments_is_not_written_to() {
    let disk = dead(&[Some(admission(0)), None, Some(admission(1)), None]);
    let first = adopt(&disk).unwrap();
    assert_eq!((first.lost.len(), finals(&disk, first)), (2, vec![SECOND, SECOND + 1]));
    let second = adopt(&disk).unwrap();
    assert_eq!((second.lost.len(), finals(&disk, second)), (0, vec![SECOND, SECOND + 1]));
}

#[test]
fn without_a_reserve_room_is_made() {
    let admissions: Vec<_> = (0..40).map(|second| Some(admission(second))).collect();
    let disk = dead(&admissions);
    let adopted = adopt(&disk).unwrap();
    assert_eq!(finals(&disk, adopted), (SECOND..SECOND + 40).collect::<Vec<_>>());
}

#[test]
fn with_a_reserve_a_log_is_adopted_although_the_disk_is_full() {
    let disk = failing("disk: full");
    fill(&disk, &[Some(admission(0)), None]);
    disk.weather.calm.set(false);
    let adopted = adopt(&disk).unwrap();
    assert_eq!((adopted.lost.len(), disk.numbers().unwrap()), (1, vec![1, 2]));
    let without = failing("disk: full");
    fill(&without, &[Some(admission(0))]);
    without.weather.calm.set(false);
    assert!(matches!(adopt(&without), Err(Unadoptable::Disk { doing: "making room for lost records", .. })));
}

#[test]
fn room_that_is_made_is_behind_everything_written() {
    let disk = sound();
    let mut segment = Segment::create(&disk, 1, 64 * 1024).unwrap();
    let mut bytes = Vec::new();
    frame::encode_opened(0, &mut bytes);
    frame::encode_admitted(&admission(0), &mut bytes).unwrap();
    frame::encode_final(1, &record(admission(1)), &mut bytes).unwrap();
    segment.append(&bytes).unwrap();
    for _ in 0..2 {
        let adopted = adopt(&disk).unwrap();
        assert_eq!(finals(&disk, adopted), [1, SECOND]);
        assert_eq!(disk.numbers().unwrap(), [1, 2]);
    }
}

#[test]
fn a_reserve_that_nothing_is_lost_for_is_removed_and_no_room_is_left_behind() {
    let disk = dead(&[None, None]);
    let adopted = adopt(&disk).unwrap();
    assert!(adopted.lost.is_empty() && adopted.book.is_empty());
    assert!(disk.numbers().unwrap().is_empty());
    let disk = dead(&[Some(admission(0)), None, None]);
    adopt(&disk).unwrap();
    for number in disk.numbers().unwrap() {
        let end = segment::read::<_, Record>(&disk, number, 0, u64::MAX).unwrap().written.unwrap();
        assert_eq!(disk.open(number).unwrap().1, end, "segment {number}");
    }
}

#[test]
fn what_is_missing_where_it_belongs_is_known() {
    let opened = |after| Entry::Opened { after };
    let finished = |sequence| Entry::Final { sequence, record: Box::new(record(admission(0))) };
    let missing = |entries: Vec<Entry>| {
        let mut order = Order::default();
        entries.iter().for_each(|entry| order.read(entry));
        order.missing
    };
    assert_eq!(missing(vec![opened(4), finished(5), finished(6), opened(6), finished(7)]), []);
    assert_eq!(missing(vec![opened(0), finished(2), finished(5)]), [1..=1, 3..=4]);
    assert_eq!(missing(vec![opened(0), finished(1), opened(3), finished(4)]), [2..=3], "a segment began behind them");
    assert_eq!(missing(vec![opened(0), Entry::Skipped { through: 9 }, finished(10)]), []);
    assert_eq!(missing(vec![opened(0), finished(1), finished(2), opened(0), finished(1)]), [], "written again");
    assert_eq!(missing(vec![opened(4), finished(5), opened(2), finished(3)]), [3..=4], "its first is gone");
}

#[test]
fn an_adoption_cut_short_while_writing_is_finished_by_the_next() {
    let disk = dead(&[Some(admission(0)), Some(admission(1)), None]);
    adopt(&disk).unwrap();
    let end = segment::read::<_, Written>(&disk, 3, 0, u64::MAX).unwrap().end;
    disk.truncate(3, end - 50).unwrap();
    let second = adopt(&disk).unwrap();
    assert_eq!((second.lost.len(), finals(&disk, second)), (1, vec![SECOND, 2 * SECOND]));
}

#[test]
fn damage_in_the_middle_of_a_log_cuts_nothing_off() {
    let disk = dead(&[Some(admission(0)), Some(admission(1)), None]);
    let (file, size) = disk.open(1).unwrap();
    let before = disk.read(1, 0, size as usize).unwrap();
    file.write(&[before[40] ^ 1], 40).unwrap();
    let adopted = adopt(&disk).unwrap();
    assert_eq!((adopted.lost.len(), adopted.damaged), (1, 1), "the segments behind it are read");
    assert_eq!(disk.read(1, 41, size as usize).unwrap(), before[41..]);
}

#[test]
fn finals_behind_damage_are_shipped_and_the_gap_before_them_is_told() {
    let disk = sound();
    let mut segment = Segment::create(&disk, 1, 64 * 1024).unwrap();
    let mut ends = Vec::new();
    let mut bytes = Vec::new();
    frame::encode_opened(0, &mut bytes);
    for sequence in 1..=5_u32 {
        frame::encode_final(sequence.into(), &record(admission(sequence.into())), &mut bytes).unwrap();
        ends.push(bytes.len());
    }
    bytes[ends[1] + 100] ^= 4;
    bytes[ends[2] + 2] ^= 4;
    segment.append(&bytes).unwrap();
    let adopted = adopt(&disk).unwrap();
    assert_eq!((adopted.lost.len(), adopted.damaged), (0, 1));
    let found: Vec<_> = shipped(&disk, adopted)
        .iter()
        .map(|entry| match entry {
            usage::Entry::Final { sequence, .. } => (*sequence, *sequence, false),
            usage::Entry::Gap { from, through, damaged, .. } => (*from, *through, *damaged),
            usage::Entry::Beat { .. } => unreachable!("a log holds no beats"),
        })
        .collect();
    assert_eq!(found, [(1, 1, false), (2, 2, false), (3, 4, true), (5, 5, false)]);
}

#[test]
fn what_is_adopted_outlives_the_machine() {
    let disk = dead(&[Some(admission(0)), None]);
    adopt(&disk).unwrap();
    disk.folder.borrow_mut().crash(&mut Chance::new(3));
    let second = adopt(&disk).unwrap();
    assert_eq!((second.lost.len(), finals(&disk, second)), (0, vec![SECOND]));
}

#[test]
fn what_is_adopted_into_a_segment_that_was_just_being_made_outlives_the_machine() {
    for chance in 0..16 {
        let disk = dead(&[Some(admission(0))]);
        // Its writer died before the folder was durable.
        disk.create(2, 64 * 1024).unwrap();
        assert_eq!(adopt(&disk).unwrap().lost.len(), 1);
        disk.folder.borrow_mut().crash(&mut Chance::new(chance));
        assert_eq!(adopt(&disk).unwrap().lost.len(), 0, "{chance}");
    }
}

#[test]
fn a_log_of_another_version_is_left_alone() {
    let disk = dead(&[Some(admission(0))]);
    let mut bytes = vec![0; 17];
    bytes[0] = 9;
    bytes[8] = 77;
    let checksum = crc32(&bytes[8..]);
    bytes[4..8].copy_from_slice(&checksum.to_le_bytes());
    let mut segment = Segment::create(&disk, 2, 4096).unwrap();
    segment.append(&bytes).unwrap();
    let before = disk.read(1, 0, 64 * 1024).unwrap();
    assert!(matches!(adopt(&disk), Err(Unadoptable::OtherVersion(2))));
    assert_eq!(disk.read(1, 0, 64 * 1024).unwrap(), before);
}

/// CRC-32 of the log's frames, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 })
    })
}
