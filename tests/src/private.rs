//! Files and folders that only their owner may read.

use std::fs::{DirBuilder, OpenOptions, rename};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use anyhow::Context;

/// Makes a folder, and those above it, with mode 0700.
///
/// # Errors
/// When the file system refuses.
pub fn make_folder(path: &Path) -> anyhow::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).with_context(|| format!("making {}", path.display()))
}

/// Replaces a file whole, with mode 0600.
///
/// # Errors
/// When the file system refuses.
pub fn write(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let draft = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        file.write_all(content)?;
        file.sync_all()?;
        rename(&draft, path)
    };
    write().with_context(|| format!("writing {}", path.display()))
}
