//! Tells the service manager how the program is doing, in the words of systemd.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;

use tracing::warn;

/// Says that this process serves, and that it is the one to watch now.
pub(super) fn ready(socket: Option<&Path>) {
    tell(socket, &format!("READY=1\nMAINPID={}\n", std::process::id()));
}

fn tell(socket: Option<&Path>, words: &str) {
    let Some(path) = socket else { return };
    if let Err(error) = send(path, words) {
        warn!(%error, "the service manager cannot be told");
    }
}

/// A name that begins with `@` is in the abstract namespace.
fn send(path: &Path, words: &str) -> std::io::Result<()> {
    let address = match path.as_os_str().as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(path)?,
    };
    UnixDatagram::unbound()?.send_to_addr(words.as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(at: &UnixDatagram) -> String {
        let mut words = [0; 100];
        let length = at.recv(&mut words).unwrap();
        String::from_utf8(words[..length].to_vec()).unwrap()
    }

    #[test]
    fn the_manager_hears_who_serves_by_path_and_by_abstract_name() {
        let expected = format!("READY=1\nMAINPID={}\n", std::process::id());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let by_path = UnixDatagram::bind(&path).unwrap();
        ready(Some(&path));
        assert_eq!(heard(&by_path), expected);

        let name = format!("notify-{}", std::process::id());
        let by_name = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        ready(Some(Path::new(&format!("@{name}"))));
        assert_eq!(heard(&by_name), expected);
        ready(None);
    }
}
