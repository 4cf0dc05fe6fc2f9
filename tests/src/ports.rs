//! Free loopback ports, the same ones at each start as far as nobody took them meanwhile.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::Context;
use rand::Rng;

use crate::private;

const FILE: &str = "ports.json";
/// Below the range from which the kernel gives ports to outgoing connections, so that a restart finds its port free.
const RANGE: std::ops::Range<u16> = 18_000..32_000;
const TRIES: usize = 200;

/// The ports of one stack by the name of their user.
pub struct Ports {
    file: PathBuf,
    known: BTreeMap<String, u16>,
}

impl Ports {
    /// Reads the ports of an earlier start.
    ///
    /// # Errors
    /// When the file is there but cannot be read.
    pub fn of_folder(folder: &Path) -> anyhow::Result<Self> {
        let file = folder.join(FILE);
        let known = if file.exists() {
            let text = std::fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
            serde_json::from_slice(&text).with_context(|| format!("reading {}", file.display()))?
        } else {
            BTreeMap::new()
        };
        Ok(Self { file, known })
    }

    /// The port of this name: the one it had, if it is still free.
    ///
    /// # Errors
    /// When no port is free or the choice cannot be kept.
    pub fn claim(&mut self, name: &str) -> anyhow::Result<u16> {
        if let Some(&port) = self.known.get(name)
            && is_free(port)
        {
            return Ok(port);
        }
        let port = self.find().with_context(|| format!("no free port for {name}"))?;
        self.known.insert(name.to_owned(), port);
        private::write(&self.file, &serde_json::to_vec_pretty(&self.known)?)?;
        Ok(port)
    }

    fn find(&self) -> Option<u16> {
        let candidate = || rand::rng().random_range(RANGE);
        std::iter::repeat_with(candidate)
            .take(TRIES)
            .find(|port| !self.known.values().any(|known| known == port) && is_free(*port))
    }
}

/// Whether nobody listens on the port, on either loopback address.
fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() && TcpListener::bind((Ipv6Addr::LOCALHOST, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_port_until_somebody_else_takes_it() {
        let folder = tempfile::tempdir().unwrap();
        let first = Ports::of_folder(folder.path()).unwrap().claim("redis").unwrap();
        let mut ports = Ports::of_folder(folder.path()).unwrap();
        assert_eq!(ports.claim("redis").unwrap(), first);
        let _taken = TcpListener::bind((Ipv4Addr::LOCALHOST, first)).unwrap();
        assert_ne!(ports.claim("redis").unwrap(), first);
    }
}
