//! A disk that fails: what a killed process wrote stays, what a crashed machine did not make durable may go, in part.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::rc::Rc;

use super::chance::{Chance, Weather};
use crate::record::disk::{Disk, DiskFile};
use crate::record::slot::{SIZE, Slot};

/// What the disk writes at once.
const SECTOR: usize = 512;

/// A process that may be killed in the middle of what it does.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) alive: Cell<bool>,
    /// After how many more operations on the disk it is killed.
    pub(crate) killed_in: Cell<Option<u32>>,
}

/// One file.
#[derive(Debug, Default)]
pub(crate) struct Content {
    pub(crate) cache: Vec<u8>,
    durable: Vec<u8>,
    dirty: Vec<(usize, Vec<u8>)>,
}

/// The folder of one log.
#[derive(Debug, Default)]
pub(crate) struct Folder {
    pub(crate) segments: BTreeMap<u64, Rc<RefCell<Content>>>,
    durable: BTreeMap<u64, Rc<RefCell<Content>>>,
    pub(crate) slots: Vec<[u8; SIZE]>,
    /// Whether data was lost or changed that the disk had promised to keep.
    pub(crate) harmed: bool,
    lied: bool,
    refused_sync: bool,
    /// Segments that were removed, for whoever checks that they were not needed.
    pub(crate) removed: Vec<Vec<u8>>,
}

/// A process's view of a folder.
#[derive(Clone, Debug)]
pub(crate) struct SimulatedDisk {
    pub(crate) folder: Rc<RefCell<Folder>>,
    pub(crate) process: Rc<Process>,
    pub(crate) weather: Rc<Weather>,
    /// A planted bug: fsync does nothing.
    pub(crate) never_syncs: bool,
}

/// An open segment.
#[derive(Clone, Debug)]
pub(crate) struct SimulatedFile {
    content: Rc<RefCell<Content>>,
    disk: SimulatedDisk,
}

fn refused() -> io::Error {
    io::Error::other("simulated EIO")
}

impl Process {
    pub(crate) fn new() -> Rc<Self> {
        Rc::new(Self { alive: Cell::new(true), killed_in: Cell::new(None) })
    }

    fn operates(&self) -> io::Result<()> {
        match self.killed_in.get() {
            Some(0) => self.alive.set(false),
            Some(more) => self.killed_in.set(Some(more - 1)),
            None => {}
        }
        if self.alive.get() { Ok(()) } else { Err(io::Error::other("killed")) }
    }
}

impl Folder {
    /// The machine has crashed: unsynced data stays in part, in any order; names and slots too.
    pub(crate) fn crash(&mut self, chance: &mut Chance) {
        let mut names = self.durable.clone();
        for (number, content) in &self.segments {
            if chance.below(2) == 0 {
                names.insert(*number, Rc::clone(content));
            }
        }
        self.segments = names.clone();
        self.durable = names;
        for content in self.segments.values() {
            content.borrow_mut().crash(chance);
        }
        for slot in &mut self.slots {
            if chance.below(2) == 0 {
                *slot = [0; SIZE];
            }
        }
        self.harmed |= self.lied;
    }

    /// Whether an fsync was refused since this was asked for; what it was for is then not to be trusted.
    pub(crate) fn refused_a_sync(&mut self) -> bool {
        self.lied |= self.refused_sync;
        std::mem::take(&mut self.refused_sync)
    }

    /// Flips a bit of what is stored; false if there is nothing.
    pub(crate) fn flip(&mut self, chance: &mut Chance) -> bool {
        let contents: Vec<_> = self.segments.values().cloned().collect();
        let Some(content) = chance.pick(&contents) else { return false };
        let mut content = content.borrow_mut();
        let written = content.cache.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        if written == 0 {
            return false;
        }
        let (at, bit) = (chance.below(written), 1 << chance.below(8));
        content.cache[at] ^= bit;
        if let Some(byte) = content.durable.get_mut(at) {
            *byte ^= bit;
        }
        self.harmed = true;
        true
    }
}

impl Content {
    fn crash(&mut self, chance: &mut Chance) {
        let kept = chance.below(3);
        for (at, bytes) in std::mem::take(&mut self.dirty) {
            let mut from = 0;
            while from < bytes.len() {
                let mut to = ((at + from) / SECTOR * SECTOR + SECTOR - at).min(bytes.len());
                let whole = chance.below(2) < kept;
                let torn = !whole && chance.below(4) == 0;
                if torn {
                    to = from + chance.below(to - from + 1);
                }
                if whole || torn {
                    self.durable.resize(self.durable.len().max(self.cache.len()), 0);
                    self.durable[at + from..at + to].copy_from_slice(&bytes[from..to]);
                }
                if torn {
                    break;
                }
                from = to;
            }
        }
        self.cache = self.durable.clone();
    }

    /// What was to be made durable never will be, and goes from the page cache, too, if it is dropped there.
    fn forget_dirty(&mut self, dropped: bool) {
        for (at, bytes) in std::mem::take(&mut self.dirty) {
            let end = (at + bytes.len()).min(self.cache.len());
            if dropped && at < end {
                self.durable.resize(self.durable.len().max(end), 0);
                self.cache[at..end].copy_from_slice(&self.durable[at..end]);
            }
        }
    }

    fn sync(&mut self) {
        self.durable.resize(self.cache.len(), 0);
        for (at, bytes) in std::mem::take(&mut self.dirty) {
            let end = (at + bytes.len()).min(self.durable.len());
            if at < end {
                self.durable[at..end].copy_from_slice(&bytes[..end - at]);
            }
        }
    }
}

impl SimulatedDisk {
    pub(crate) fn write_slot(&self, index: usize, slot: &Slot) -> io::Result<()> {
        self.process.operates()?;
        let mut folder = self.folder.borrow_mut();
        let count = folder.slots.len().max(index + 1);
        folder.slots.resize(count, [0; SIZE]);
        folder.slots[index] = slot.encode();
        Ok(())
    }

    fn operates(&self, fault: &'static str) -> io::Result<()> {
        self.process.operates()?;
        if self.weather.strikes(fault) { Err(refused()) } else { Ok(()) }
    }

    fn content(&self, number: u64) -> io::Result<Rc<RefCell<Content>>> {
        self.folder.borrow().segments.get(&number).cloned().ok_or_else(|| ErrorKind::NotFound.into())
    }
}

impl Disk for SimulatedDisk {
    type File = SimulatedFile;

    fn create(&self, number: u64, size: u64) -> io::Result<SimulatedFile> {
        self.operates("disk: create refused")?;
        let content = Rc::new(RefCell::new(Content::default()));
        self.folder.borrow_mut().segments.insert(number, Rc::clone(&content));
        if self.weather.strikes("disk: full") {
            return Err(ErrorKind::StorageFull.into());
        }
        content.borrow_mut().cache.resize(size as usize, 0);
        Ok(SimulatedFile { content, disk: self.clone() })
    }

    fn open(&self, number: u64) -> io::Result<(SimulatedFile, u64)> {
        self.process.operates()?;
        let content = self.content(number)?;
        let size = content.borrow().cache.len() as u64;
        Ok((SimulatedFile { content, disk: self.clone() }, size))
    }

    fn sync_names(&self) -> io::Result<()> {
        self.operates("disk: folder fsync refused")?;
        let mut folder = self.folder.borrow_mut();
        if !self.never_syncs {
            folder.durable = folder.segments.clone();
        }
        Ok(())
    }

    fn read(&self, number: u64, from: u64, at_most: usize) -> io::Result<Vec<u8>> {
        self.operates("disk: read refused")?;
        let content = self.content(number)?;
        let content = content.borrow();
        let from = (from as usize).min(content.cache.len());
        Ok(content.cache[from..(from + at_most).min(content.cache.len())].to_vec())
    }

    fn truncate(&self, number: u64, size: u64) -> io::Result<()> {
        self.operates("disk: truncate refused")?;
        self.content(number)?.borrow_mut().cache.resize(size as usize, 0);
        Ok(())
    }

    fn remove(&self, number: u64) -> io::Result<()> {
        self.operates("disk: remove refused")?;
        let mut folder = self.folder.borrow_mut();
        let content = folder.segments.remove(&number).ok_or(ErrorKind::NotFound)?;
        let bytes = content.borrow().cache.clone();
        folder.removed.push(bytes);
        Ok(())
    }

    fn numbers(&self) -> io::Result<Vec<u64>> {
        self.process.operates()?;
        Ok(self.folder.borrow().segments.keys().copied().collect())
    }

    fn slots(&self) -> io::Result<Vec<Slot>> {
        self.process.operates()?;
        Ok(self.folder.borrow().slots.iter().filter_map(Slot::decode).collect())
    }

    fn remove_slots(&self) -> io::Result<()> {
        self.process.operates()?;
        self.folder.borrow_mut().slots.clear();
        Ok(())
    }
}

impl DiskFile for SimulatedFile {
    fn write(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.disk.operates("disk: write refused")?;
        let at = at as usize;
        let mut content = self.content.borrow_mut();
        if content.cache.len() < at + bytes.len() {
            return Err(ErrorKind::StorageFull.into());
        }
        let cut = self.disk.weather.strikes("disk: write cut short");
        let bytes = if cut { &bytes[..self.disk.weather.below(bytes.len())] } else { bytes };
        content.cache[at..at + bytes.len()].copy_from_slice(bytes);
        content.dirty.push((at, bytes.to_vec()));
        if cut { Err(refused()) } else { Ok(()) }
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.process.operates()?;
        let mut content = self.content.borrow_mut();
        if self.disk.never_syncs {
            return Ok(());
        }
        let dropped = self.disk.weather.strikes("disk: fsync refused and pages dropped");
        if dropped || self.disk.weather.strikes("disk: fsync refused") {
            self.disk.folder.borrow_mut().refused_sync = true;
            content.forget_dirty(dropped);
            return Err(refused());
        }
        if self.disk.weather.strikes("disk: fsync lied") {
            content.dirty.clear();
            self.disk.folder.borrow_mut().lied = true;
            return Ok(());
        }
        content.sync();
        Ok(())
    }
}

/// A disk of which nothing goes wrong.
pub(crate) fn sound() -> SimulatedDisk {
    failing("nothing")
}

/// A disk of which nothing goes wrong until its weather is not calm any more; then this always does.
pub(crate) fn failing(fault: &'static str) -> SimulatedDisk {
    let weather = Weather::new(BTreeMap::from([(fault, 1)]));
    weather.calm.set(true);
    SimulatedDisk { folder: Rc::default(), process: Process::new(), weather, never_syncs: false }
}
