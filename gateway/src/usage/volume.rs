//! Measures what record logs take on disk and what is left of it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tracing::warn;

use super::Shared;

/// How often the disk is looked at.
const LOOK: Duration = Duration::from_secs(5);

/// What the logs of a folder take, and what is free beside them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Volume {
    taken: u64,
    free: u64,
}

/// Measures until dropped.
pub(crate) async fn measure(shared: Arc<Shared>) {
    loop {
        let root = shared.settings.folder.clone();
        let measured = spawn_blocking(move || Volume::of(&root)).await.map_err(io::Error::other).flatten();
        match measured {
            Ok(volume) => {
                let record = &shared.metrics.record;
                record.bytes.set(i64::try_from(volume.taken).unwrap_or(i64::MAX));
                record.free_bytes.set(i64::try_from(volume.free).unwrap_or(i64::MAX));
            }
            Err(error) => warn!(%error, "cannot measure the record logs"),
        }
        sleep(LOOK).await;
    }
}

impl Volume {
    fn of(root: &Path) -> io::Result<Self> {
        let disk = rustix::fs::statvfs(root)?;
        Ok(Self { taken: size(root)?, free: disk.f_bavail.saturating_mul(disk.f_frsize) })
    }
}

/// Bytes of all files below a folder; what vanishes meanwhile counts nothing.
fn size(folder: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            match entry.metadata() {
                Ok(facts) if facts.is_dir() => folders.push(entry.path()),
                Ok(facts) => bytes += facts.len(),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_files_of_all_writers_are_counted() {
        let root = tempfile::tempdir().unwrap();
        let empty = Volume::of(root.path()).unwrap();
        assert_eq!(empty.taken, 0);
        assert!(empty.free > 0);
        for writer in ["a", "b"] {
            let segments = root.path().join(writer).join("segments");
            fs::create_dir_all(&segments).unwrap();
            fs::write(segments.join("0000000001.log"), [0; 1000]).unwrap();
            fs::write(root.path().join(writer).join("slots"), [0; 24]).unwrap();
        }
        assert_eq!(size(root.path()).unwrap(), 2048);
        assert!(Volume::of(&root.path().join("not there")).is_err());
    }
}
