//! Finds the logs of dead processes on this machine and takes them over.

use anyhow::Context;
use protocol::ids::WriterId;
use protocol::record::adoption;
use protocol::record::reader::Stored;
use protocol::usage::Record;
use std::sync::{Arc, Mutex};

use super::disk::Files;
use super::folder::{Folder, Lock};

/// A dead writer's log, ended and locked.
#[derive(Debug)]
pub(crate) struct Adopted {
    /// The log.
    pub(crate) stored: Stored<Files>,
    /// Where it is.
    pub(crate) folder: Folder,
    /// The right to it.
    pub(crate) lock: Lock,
    /// The attempts that were lost.
    pub(crate) lost: Vec<Record>,
    /// At how many places it cannot be read.
    pub(crate) damaged: u64,
}

/// Takes over a folder if nobody has it. Blocks. Whatever line this dies at, it can be done again.
pub(crate) fn adopt(writer: WriterId, folder: Folder) -> anyhow::Result<Option<Adopted>> {
    let Some(lock) = folder.claim().context("locking it")? else { return Ok(None) };
    let disk = Files::of(&folder);
    let adoption::Adoption { book, lost, damaged } = adoption::adopt(&disk)?;
    let stored = Stored { writer, disk, book: Arc::new(Mutex::new(book)) };
    Ok(Some(Adopted { stored, folder, lock, lost, damaged }))
}
