//! What the record path asks of the folder of one log: the gateway answers with files, the simulator with a disk of its own.

use std::{fmt, io};

use crate::record::slot::Slot;

/// The folder of one log: numbered segments, and the slots of calls in flight.
pub trait Disk: Clone + fmt::Debug {
    /// A segment that is written to.
    type File: DiskFile;

    /// Makes a segment of zeros whose room is reserved, in place of one that has its number. It is not durable yet.
    ///
    /// # Errors
    /// When the disk refuses or is full.
    fn create(&self, number: u64, size: u64) -> io::Result<Self::File>;

    /// Opens a segment, and says how large it is.
    ///
    /// # Errors
    /// When it is not there or the disk refuses.
    fn open(&self, number: u64) -> io::Result<(Self::File, u64)>;

    /// Makes durable which segments there are.
    ///
    /// # Errors
    /// When the disk refuses.
    fn sync_names(&self) -> io::Result<()>;

    /// Reads from a place on; fewer bytes than asked for are all up to the segment's end.
    ///
    /// # Errors
    /// When it is not there or the disk refuses.
    fn read(&self, number: u64, from: u64, at_most: usize) -> io::Result<Vec<u8>>;

    /// Cuts a segment off.
    ///
    /// # Errors
    /// When it is not there or the disk refuses.
    fn truncate(&self, number: u64, size: u64) -> io::Result<()>;

    /// Removes a segment.
    ///
    /// # Errors
    /// When it is not there or the disk refuses.
    fn remove(&self, number: u64) -> io::Result<()>;

    /// The segments there are, in ascending order; none if there is no folder.
    ///
    /// # Errors
    /// When the disk refuses.
    fn numbers(&self) -> io::Result<Vec<u64>>;

    /// The readable slots; none if they were removed.
    ///
    /// # Errors
    /// When the disk refuses.
    fn slots(&self) -> io::Result<Vec<Slot>>;

    /// Removes the slots, if they are there.
    ///
    /// # Errors
    /// When the disk refuses.
    fn remove_slots(&self) -> io::Result<()>;
}

/// A segment that is written to; clones are the same one.
pub trait DiskFile: Clone + fmt::Debug {
    /// Writes bytes at a place, where a kill of the process cannot reach them.
    ///
    /// # Errors
    /// When the disk refuses; then any part of them may be written.
    fn write(&self, bytes: &[u8], at: u64) -> io::Result<()>;

    /// Makes everything written so far durable.
    ///
    /// # Errors
    /// When the disk refuses; then nothing written since the last success may be trusted, even if a later call succeeds.
    fn sync(&self) -> io::Result<()>;
}
