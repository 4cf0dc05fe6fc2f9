//! One stack per folder: a lock that ends with its process.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, bail};
use rustix::fs::{FlockOperation, flock};

const FILE: &str = "lock";

/// The right to run a stack in a folder, until it is dropped.
pub(super) struct Hold {
    _file: File,
}

impl Hold {
    /// Takes the folder.
    ///
    /// # Errors
    /// When another stack runs in it.
    pub(super) fn take(folder: &Path) -> anyhow::Result<Self> {
        let mut file = open(folder)?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let holder =
                read_number(&mut file).map_or_else(|| "another process".into(), |pid| format!("process {pid}"));
            let stop = stop_command(folder);
            bail!("a stack runs in {} already ({holder}); stop it with: {stop}", folder.display());
        }
        file.set_len(0)?;
        file.rewind()?;
        write!(file, "{}", std::process::id())?;
        Ok(Self { _file: file })
    }
}

/// What stops the stack of a folder.
pub(super) fn stop_command(folder: &Path) -> String {
    if folder == Path::new(".local") { "make stop".into() } else { format!("local stop --dir {}", folder.display()) }
}

/// The process that runs a stack in a folder, if one does.
pub(super) fn holder(folder: &Path) -> anyhow::Result<Option<i32>> {
    if !folder.join(FILE).exists() {
        return Ok(None);
    }
    let mut file = open(folder)?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
        return Ok(None);
    }
    read_number(&mut file).map(Some).context("the lock file names no process")
}

fn open(folder: &Path) -> anyhow::Result<File> {
    let path = folder.join(FILE);
    let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).mode(0o600).open(&path);
    file.with_context(|| format!("opening {}", path.display()))
}

fn read_number(file: &mut File) -> Option<i32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_stack_in_the_same_folder_is_refused_by_the_number_of_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let first = Hold::take(folder.path()).unwrap();
        let refusal = Hold::take(folder.path()).err().unwrap().to_string();
        assert!(refusal.contains(&std::process::id().to_string()), "{refusal}");
        drop(first);
        assert!(holder(folder.path()).unwrap().is_none());
        assert!(Hold::take(folder.path()).is_ok());
    }
}
