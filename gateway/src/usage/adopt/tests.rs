//! Tests of `adopt`: done again, it changes nothing; it writes only behind what was written.

use std::path::Path;

use protocol::usage::Admission;

use super::*;
use crate::usage::sample;

/// A dead writer with segments of the given admissions; none is a segment of zeros.
fn dead(root: &Path, segments: &[Option<Admission>]) -> (WriterId, Folder) {
    let writer = WriterId::random();
    let (folder, _lock) = Folder::create(root, writer).unwrap();
    for (number, admission) in (1..).zip(segments) {
        let mut segment = Segment::create(&folder.segments(), number, 64 * 1024).unwrap();
        let mut bytes = Vec::new();
        if let Some(admission) = admission {
            frame::encode_opened(0, &mut bytes);
            frame::encode_admitted(admission, &mut bytes).unwrap();
        }
        segment.append(&bytes).unwrap();
    }
    (writer, folder)
}

fn finals(adopted: &Adopted) -> Vec<u64> {
    let start = adopted.stored.book().holding(1).unwrap();
    let mut batch = adopted.stored.read(start, 1).unwrap();
    let mut found = Vec::new();
    while let Some((last, _)) = batch.finals.last() {
        let next = last + 1;
        found.extend(batch.finals.iter().map(|(sequence, _)| *sequence));
        batch = adopted.stored.read(batch.position, next).unwrap();
    }
    found
}

#[test]
fn a_hole_between_segments_is_not_written_to() {
    let root = tempfile::tempdir().unwrap();
    let (writer, folder) = dead(root.path(), &[Some(sample::admission()), None, Some(sample::admission()), None]);
    let first = adopt(writer, folder.clone()).unwrap().unwrap();
    assert_eq!((first.lost.len(), finals(&first)), (2, vec![1, 2]));
    assert!(adopt(writer, folder.clone()).unwrap().is_none(), "it is held");
    drop(first);
    let second = adopt(writer, folder).unwrap().unwrap();
    assert_eq!((second.lost.len(), finals(&second)), (0, vec![1, 2]));
}

#[test]
fn without_a_reserve_room_is_made() {
    let root = tempfile::tempdir().unwrap();
    let admissions: Vec<_> = (0..40).map(|_| Some(sample::admission())).collect();
    let (writer, folder) = dead(root.path(), &admissions);
    let adopted = adopt(writer, folder).unwrap().unwrap();
    assert_eq!(finals(&adopted), (1..=40).collect::<Vec<_>>());
}

#[test]
fn an_adoption_cut_short_while_writing_is_finished_by_the_next() {
    let root = tempfile::tempdir().unwrap();
    let (writer, folder) = dead(root.path(), &[Some(sample::admission()), Some(sample::admission()), None]);
    let first = adopt(writer, folder.clone()).unwrap().unwrap();
    let end = segment::read(&folder.segments(), 3, 0, u64::MAX).unwrap().end;
    drop(first);
    segment::trim(&folder.segments(), Position { segment: 3, offset: end - 50 }).unwrap();
    let second = adopt(writer, folder).unwrap().unwrap();
    assert_eq!((second.lost.len(), finals(&second)), (1, vec![1, 2]));
}

#[test]
fn damage_in_the_middle_of_a_log_cuts_nothing_off() {
    let root = tempfile::tempdir().unwrap();
    let (writer, folder) = dead(root.path(), &[Some(sample::admission()), Some(sample::admission()), None]);
    let damaged = segment::path(&folder.segments(), 1);
    let mut bytes = fs::read(&damaged).unwrap();
    bytes[40] ^= 1;
    fs::write(&damaged, &bytes).unwrap();
    let adopted = adopt(writer, folder).unwrap().unwrap();
    assert_eq!(adopted.lost.len(), 1, "the segments behind it are read");
    assert_eq!(fs::read(&damaged).unwrap(), bytes);
}

#[test]
fn a_log_of_another_version_is_left_alone() {
    let root = tempfile::tempdir().unwrap();
    let (writer, folder) = dead(root.path(), &[Some(sample::admission())]);
    let mut bytes = vec![0; 17];
    bytes[0] = 9;
    bytes[8] = 77;
    let checksum = crc32(&bytes[8..]);
    bytes[4..8].copy_from_slice(&checksum.to_le_bytes());
    let mut segment = Segment::create(&folder.segments(), 2, 4096).unwrap();
    segment.append(&bytes).unwrap();
    let before = fs::read(segment::path(&folder.segments(), 1)).unwrap();
    assert!(adopt(writer, folder.clone()).is_err());
    assert_eq!(fs::read(segment::path(&folder.segments(), 1)).unwrap(), before);
    assert!(folder.claim().unwrap().is_some(), "the lock is free again");
}

/// CRC-32 of the log's frames, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 })
    })
}
