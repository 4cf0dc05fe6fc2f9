//! Frames of the record log: any bytes are read to a stop, and what is read was written.

use protocol::record::frame::{self, Entry, Reader};
use protocol::usage::Record;

/// `data` is a piece of a segment; its frames get the right checksums first, so that their insides are reached.
pub(crate) fn run(data: &[u8]) {
    read(data);
    read(&repaired(data));
}

fn read(bytes: &[u8]) {
    let mut reader = Reader::new(bytes);
    let stop = loop {
        let before = reader.position();
        match reader.next_entry() {
            Ok(entry) => {
                assert!(reader.position() > before && reader.position() <= bytes.len(), "a frame of no length");
                check(&entry);
            }
            Err(stop) => break stop,
        }
    };
    let at = reader.position();
    assert_eq!((reader.next_entry::<Box<Record>>(), reader.position()), (Err(stop), at), "a stop moves");
}

/// What was read is read again from what it is written as.
fn check(entry: &Entry) {
    let mut written = Vec::new();
    let fits = match entry {
        Entry::Opened { after } => {
            frame::encode_opened(*after, &mut written);
            Ok(())
        }
        Entry::Skipped { through } => {
            frame::encode_skipped(*through, &mut written);
            Ok(())
        }
        Entry::Admitted(admission) => frame::encode_admitted(admission, &mut written),
        Entry::Final { sequence, record } => frame::encode_final(*sequence, record, &mut written),
    };
    // What came in shorter JSON than ours may not fit any more.
    if fits.is_ok() {
        assert_eq!(Reader::new(&written).next_entry().as_ref(), Ok(entry), "an entry changes when it is written");
    }
}

/// The same bytes, each frame with the checksum of what is in it.
fn repaired(data: &[u8]) -> Vec<u8> {
    let mut bytes = data.to_vec();
    let mut at = 0;
    while let Some(length) = bytes.get(at..at + 4) {
        let length = u32::from_le_bytes(length.try_into().expect("four bytes")) as usize;
        let Some(body) = bytes.get(at + 8..).and_then(|rest| rest.get(..length)) else { break };
        let checksum = crc32fast::hash(body).to_le_bytes();
        bytes[at + 4..at + 8].copy_from_slice(&checksum);
        at += 8 + length;
    }
    bytes
}
