//! The private socket at which the running gateway hands over.

use std::fs::{DirBuilder, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use rustix::process::geteuid;
use tokio::net::{UnixListener, UnixStream};
use tracing::warn;

/// How long nobody is let in after the system could not.
const PAUSE: Duration = Duration::from_secs(1);
const OTHERS: u32 = 0o077;

/// The private socket at which the running gateway hands over.
pub(super) struct PrivateSocket {
    path: PathBuf,
    listener: UnixListener,
}

/// A socket that nobody finds yet.
pub(super) struct Draft {
    path: PathBuf,
    listener: UnixListener,
}

impl Draft {
    /// Makes one for this place.
    ///
    /// # Errors
    /// When others may enter its folder, or the system refuses.
    pub(super) fn new(path: &Path) -> anyhow::Result<Self> {
        make_private_folder(path)?;
        let draft = draft(path);
        let bind = || -> std::io::Result<UnixListener> {
            remove(&draft)?;
            let listener = UnixListener::bind(&draft)?;
            std::fs::set_permissions(&draft, Permissions::from_mode(0o600))?;
            Ok(listener)
        };
        let listener = bind().with_context(|| opening(path))?;
        Ok(Self { path: path.to_owned(), listener })
    }

    /// Puts it in its place; one that is there already is replaced.
    ///
    /// # Errors
    /// When the system refuses.
    pub(super) fn publish(self) -> anyhow::Result<PrivateSocket> {
        let Self { path, listener } = self;
        // Whoever comes meanwhile finds the old one or the new one, never none.
        std::fs::rename(draft(&path), &path).with_context(|| opening(&path))?;
        Ok(PrivateSocket { path, listener })
    }
}

impl PrivateSocket {
    /// The next one who comes.
    pub(super) async fn next(&self) -> UnixStream {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => return stream,
                Err(error) => {
                    warn!(%error, "nobody can be let in at the hand-over socket");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Takes it away. A gateway that was replaced leaves it to the next one.
    pub(super) fn close(self) {
        if let Err(error) = remove(&self.path) {
            warn!(%error, "the hand-over socket cannot be removed");
        }
    }
}

/// Whether a gateway answers there.
///
/// # Errors
/// When that cannot be known.
pub(super) fn is_answered(path: &Path) -> anyhow::Result<bool> {
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Ok(true),
        Err(error) if is_nobody(&error) => Ok(false),
        Err(error) => Err(error).with_context(|| asking(path)),
    }
}

/// Goes there; none when nobody answers.
///
/// # Errors
/// When that cannot be known, or somebody else answers.
pub(super) async fn connect(path: &Path) -> anyhow::Result<Option<UnixStream>> {
    match UnixStream::connect(path).await {
        Ok(stream) => super::wire::check_peer(&stream).map(|()| Some(stream)),
        Err(error) if is_nobody(&error) => Ok(None),
        Err(error) => Err(error).with_context(|| asking(path)),
    }
}

fn draft(path: &Path) -> PathBuf {
    path.with_extension("new")
}

fn opening(path: &Path) -> String {
    format!("opening the hand-over socket {}", path.display())
}

fn asking(path: &Path) -> String {
    format!("asking at {} whether a gateway runs", path.display())
}

/// A socket whose process is gone refuses; one that was taken away is not found.
fn is_nobody(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound)
}

fn make_private_folder(path: &Path) -> anyhow::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).context("no folder is named")?;
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder).and_then(|()| std::fs::metadata(folder));
    let facts = made.with_context(|| format!("making {}", folder.display()))?;
    let private = facts.uid() == geteuid().as_raw() && facts.mode() & OTHERS == 0;
    ensure!(private, "others may enter {}: the hand-over socket needs a folder with mode 0700", folder.display());
    Ok(())
}

fn remove(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_is_private_and_replaces_one_that_nobody_opens_any_more() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("own").join("upgrade.sock");
        assert!(!is_answered(&path).unwrap());
        drop(Draft::new(&path).unwrap().publish().unwrap());
        assert!(!is_answered(&path).unwrap(), "nobody stands behind it");
        let draft = Draft::new(&path).unwrap();
        assert!(!is_answered(&path).unwrap(), "nobody finds it yet");
        let socket = draft.publish().unwrap();
        assert!(is_answered(&path).unwrap());
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(std::fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o777, 0o700);
        socket.close();
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_folder_that_others_may_enter_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o750)).unwrap();
        let refusal = Draft::new(&folder.path().join("upgrade.sock")).err().unwrap().to_string();
        assert!(refusal.contains("0700"), "{refusal}");
    }
}
