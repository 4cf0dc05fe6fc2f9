//! The slots file: the counters of each call in flight, where they outlive the process.
//!
//! A slot is written with one `pwrite` and not through a mapping, which would need unsafe code: the page cache keeps
//! the bytes when the process is killed, either way. Slots are never cleared; they are found by the attempt they name.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::PoisonError;

use protocol::record::slot::{SIZE, Slot};
use rustix::fs::{FallocateFlags, fallocate};

use crate::sync::Mutex;

/// The slots of a live process.
#[derive(Debug)]
pub(crate) struct Slots {
    file: File,
    free: Mutex<Vec<u32>>,
}

impl Slots {
    /// Makes the file with room for this many calls.
    pub(crate) fn create(path: &Path, count: u32) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).open(path)?;
        fallocate(&file, FallocateFlags::empty(), 0, u64::from(count) * SIZE as u64)?;
        Ok(Self { file, free: Mutex::new((0..count).rev().collect()) })
    }

    /// A slot nobody has; none if as many calls are in flight as there are slots.
    pub(crate) fn take(&self) -> Option<u32> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// Gives a slot back.
    pub(crate) fn give(&self, index: u32) {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(index);
    }

    /// Writes a slot.
    pub(crate) fn write(&self, index: u32, slot: &Slot) -> io::Result<()> {
        self.file.write_all_at(&slot.encode(), u64::from(index) * SIZE as u64)
    }
}

/// The slots a dead process left.
pub(crate) fn read(path: &Path) -> io::Result<Vec<Slot>> {
    let bytes = fs::read(path)?;
    Ok(bytes.as_chunks::<SIZE>().0.iter().filter_map(Slot::decode).collect())
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use protocol::ids::InvocationId;
    use protocol::record::settle::Counters;

    use std::collections::BTreeSet;
    use std::sync::Arc;

    use super::*;
    use crate::sync::explore;

    #[test]
    fn in_every_order_of_threads_a_slot_has_one_owner_and_none_is_lost() {
        explore(1000, || {
            let folder = tempfile::tempdir().unwrap();
            let slots = Arc::new(Slots::create(&folder.path().join("slots"), 2).unwrap());
            let owned = Arc::new(Mutex::new(BTreeSet::new()));
            let threads: Vec<_> = (0..3)
                .map(|_| {
                    let (slots, owned) = (Arc::clone(&slots), Arc::clone(&owned));
                    shuttle::thread::spawn(move || {
                        for _ in 0..2 {
                            let Some(slot) = slots.take() else { continue };
                            assert!(owned.lock().unwrap().insert(slot), "slot {slot} has two owners");
                            assert!(owned.lock().unwrap().remove(&slot));
                            slots.give(slot);
                        }
                    })
                })
                .collect();
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            let left: BTreeSet<u32> = std::iter::from_fn(|| slots.take()).collect();
            assert_eq!(left, BTreeSet::from([0, 1]));
        });
    }

    #[test]
    fn what_was_written_outlives_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("slots");
        let slots = Slots::create(&path, 3).unwrap();
        let taken: Vec<u32> = std::iter::from_fn(|| slots.take()).collect();
        assert_eq!(taken, [0, 1, 2]);
        let slot = Slot {
            invocation: InvocationId::random(),
            updated_at: DateTime::UNIX_EPOCH,
            counters: Counters { chunks: 3, ..Counters::default() },
        };
        slots.write(1, &slot).unwrap();
        slots.give(1);
        assert_eq!(slots.take(), Some(1));
        assert_eq!(read(&path).unwrap(), [slot]);
    }
}
