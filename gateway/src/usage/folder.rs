//! The folder of one record log: `lock`, `slots` and `segments/`, owned by who holds the lock.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use protocol::ids::WriterId;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// Where a writer keeps its log.
#[derive(Clone, Debug)]
pub(crate) struct Folder {
    path: PathBuf,
}

/// The right to a folder, for as long as it is held; the kernel takes it from a process that dies.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "held, not used: closing it gives the lock back")] File);

impl Folder {
    /// Makes the folder of a new writer, locked. It gets its name only once it is locked, so that nobody adopts it
    /// in between; what a crash leaves of that moment is an empty folder with a dot before its name.
    pub(crate) fn create(root: &Path, writer: WriterId) -> io::Result<(Self, Lock)> {
        let hidden = Self { path: root.join(format!(".{writer}")) };
        fs::create_dir_all(&hidden.path)?;
        File::create_new(hidden.lock())?;
        let lock = hidden.claim()?.ok_or(io::ErrorKind::WouldBlock)?;
        fs::create_dir(hidden.segments())?;
        // A folder whose lock a crash has taken would never be adopted.
        File::open(&hidden.path)?.sync_all()?;
        let folder = Self { path: root.join(writer.to_string()) };
        fs::rename(&hidden.path, &folder.path)?;
        File::open(root)?.sync_all()?;
        Ok((folder, lock))
    }

    /// The folders of all writers.
    pub(crate) fn list(root: &Path) -> io::Result<Vec<(WriterId, Self)>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(root)? {
            let entry = entry?;
            let writer = entry.file_name().to_str().and_then(|name| name.parse().ok());
            found.extend(writer.map(|writer| (writer, Self { path: entry.path() })));
        }
        Ok(found)
    }

    /// Takes the lock, if nobody has it and the folder is still there.
    pub(crate) fn claim(&self) -> io::Result<Option<Lock>> {
        let file = match OpenOptions::new().write(true).open(self.lock()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => return Ok(None),
            locked => locked?,
        }
        // Who held it before may have removed the folder while this waited at the door.
        let ours = file.metadata()?.ino();
        Ok(fs::metadata(self.lock()).is_ok_and(|named| named.ino() == ours).then_some(Lock(file)))
    }

    /// Removes the folder with all that is in it; the lock goes last.
    pub(crate) fn remove(&self) -> io::Result<()> {
        for part in [self.segments(), self.slots()] {
            let removed = if part.is_dir() { fs::remove_dir_all(&part) } else { fs::remove_file(&part) };
            match removed {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => removed?,
            }
        }
        fs::remove_file(self.lock())?;
        fs::remove_dir(&self.path)
    }

    /// The counters of calls in flight.
    pub(crate) fn slots(&self) -> PathBuf {
        self.path.join("slots")
    }

    /// The segments.
    pub(crate) fn segments(&self) -> PathBuf {
        self.path.join("segments")
    }

    fn lock(&self) -> PathBuf {
        self.path.join("lock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_owner_at_a_time() {
        let root = tempfile::tempdir().unwrap();
        let writer = WriterId::random();
        let (folder, lock) = Folder::create(root.path(), writer).unwrap();
        let found = Folder::list(root.path()).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].0, writer);
        assert!(found[0].1.claim().unwrap().is_none());
        drop(lock);
        let again = found[0].1.claim().unwrap();
        assert!(again.is_some() && folder.claim().unwrap().is_none());
        folder.remove().unwrap();
        drop(again);
        assert!(folder.claim().unwrap().is_none());
        assert!(Folder::list(root.path()).unwrap().is_empty());
    }
}
