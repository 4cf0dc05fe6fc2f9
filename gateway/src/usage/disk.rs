//! The segments and slots of one log as files.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use protocol::record::disk::{Disk, DiskFile};
use protocol::record::slot::Slot;
use rustix::fs::{FallocateFlags, fallocate};

use super::folder::Folder;
use super::slots;

/// The files of one log.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    segments: Arc<PathBuf>,
    slots: Arc<PathBuf>,
}

/// A segment that is written to.
#[derive(Clone, Debug)]
pub(crate) struct SegmentFile(Arc<File>);

impl Files {
    pub(crate) fn of(folder: &Folder) -> Self {
        Self { segments: Arc::new(folder.segments()), slots: Arc::new(folder.slots()) }
    }

    fn path(&self, number: u64) -> PathBuf {
        self.segments.join(format!("{number:010}.log"))
    }
}

impl Disk for Files {
    type File = SegmentFile;

    fn create(&self, number: u64, size: u64) -> io::Result<SegmentFile> {
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(self.path(number))?;
        fallocate(&file, FallocateFlags::empty(), 0, size)?;
        Ok(SegmentFile(Arc::new(file)))
    }

    fn open(&self, number: u64) -> io::Result<(SegmentFile, u64)> {
        let file = OpenOptions::new().write(true).open(self.path(number))?;
        let size = file.metadata()?.len();
        Ok((SegmentFile(Arc::new(file)), size))
    }

    fn sync_names(&self) -> io::Result<()> {
        File::open(&*self.segments)?.sync_all()
    }

    fn read(&self, number: u64, from: u64, at_most: usize) -> io::Result<Vec<u8>> {
        let file = File::open(self.path(number))?;
        let rest = file.metadata()?.len().saturating_sub(from);
        let mut bytes = vec![0; usize::try_from(rest).unwrap_or(at_most).min(at_most)];
        file.read_exact_at(&mut bytes, from)?;
        Ok(bytes)
    }

    fn truncate(&self, number: u64, size: u64) -> io::Result<()> {
        OpenOptions::new().write(true).open(self.path(number))?.set_len(size)
    }

    fn remove(&self, number: u64) -> io::Result<()> {
        fs::remove_file(self.path(number))
    }

    fn numbers(&self) -> io::Result<Vec<u64>> {
        let mut numbers = Vec::new();
        let entries = match fs::read_dir(&*self.segments) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(numbers),
            entries => entries?,
        };
        for entry in entries {
            let name = entry?.file_name();
            numbers.extend(name.to_str().and_then(|name| name.strip_suffix(".log")?.parse::<u64>().ok()));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn slots(&self) -> io::Result<Vec<Slot>> {
        match slots::read(&self.slots) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            slots => slots,
        }
    }

    fn remove_slots(&self) -> io::Result<()> {
        match fs::remove_file(&*self.slots) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }
}

impl DiskFile for SegmentFile {
    fn write(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, at)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use protocol::ids::WriterId;
    use protocol::record::segment::Segment;

    use super::*;

    #[test]
    fn files_answer_as_the_record_path_expects() {
        let root = tempfile::tempdir().unwrap();
        let (folder, _lock) = Folder::create(root.path(), WriterId::random()).unwrap();
        let files = Files::of(&folder);
        let mut segment = Segment::create(&files, 3, 4096).unwrap();
        segment.append(&[1, 2, 3]).unwrap();
        segment.append(&[4]).unwrap();
        assert_eq!(files.read(3, 1, 4).unwrap(), [2, 3, 4, 0]);
        assert_eq!(files.read(3, 4094, 100).unwrap(), [0, 0]);
        assert!(files.read(3, 9000, 100).unwrap().is_empty());
        assert_eq!(files.open(3).unwrap().1, 4096);
        files.truncate(3, 2).unwrap();
        assert_eq!(files.read(3, 0, 100).unwrap(), [1, 2]);
        Segment::create(&files, 20, 4096).unwrap();
        assert_eq!(files.numbers().unwrap(), [3, 20]);
        files.remove(3).unwrap();
        assert_eq!(files.numbers().unwrap(), [20]);
        assert!(files.slots().unwrap().is_empty());
        files.remove_slots().unwrap();
        folder.remove().unwrap();
        assert!(files.numbers().unwrap().is_empty());
    }
}
