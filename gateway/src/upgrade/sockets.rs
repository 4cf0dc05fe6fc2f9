//! The listening sockets of the program: opened, or taken over from the process before.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, IntoRawFd, OwnedFd};

use anyhow::{Context, ensure};
use pingora::server::ListenFds;

/// Sockets that listen, by their address.
#[derive(Debug)]
pub(super) struct Sockets(Vec<(SocketAddr, OwnedFd)>);

impl Sockets {
    /// Opens a socket for each address.
    ///
    /// # Errors
    /// When an address is taken or not this machine's.
    pub(super) fn open(addresses: &[SocketAddr]) -> anyhow::Result<Self> {
        Self::take(addresses, Vec::new())
    }

    /// Keeps those of the given sockets that are wanted, closes the others, and opens what is missing.
    ///
    /// # Errors
    /// When a missing one cannot be opened.
    pub(super) fn take(addresses: &[SocketAddr], given: Vec<OwnedFd>) -> anyhow::Result<Self> {
        let mut given: Vec<TcpListener> = given.into_iter().map(TcpListener::from).collect();
        let mut sockets = Vec::new();
        for &address in addresses {
            let found = given.iter().position(|socket| socket.local_addr().is_ok_and(|bound| bound == address));
            let socket = match found {
                Some(found) => given.swap_remove(found),
                None => TcpListener::bind(address).with_context(|| format!("opening {address}"))?,
            };
            socket.set_nonblocking(true)?;
            sockets.push((address, socket.into()));
        }
        Ok(Self(sockets))
    }

    /// Their descriptors, to be passed on.
    pub(super) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        self.0.iter().map(|(_, socket)| socket.as_fd()).collect()
    }

    /// Gives the framework the socket of an address, as one more descriptor that it owns.
    pub(super) fn lend(&self, address: &str, table: &ListenFds) -> anyhow::Result<()> {
        let socket = self.0.iter().find(|(bound, _)| bound.to_string() == address);
        let (_, socket) = socket.with_context(|| format!("there is no socket for {address}"))?;
        let descriptor = socket.try_clone().context("lending a socket")?.into_raw_fd();
        let mut table = table.lock();
        ensure!(table.get(address).is_none(), "{address} is listened on twice");
        table.add(address.to_owned(), descriptor);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpStream;

    use super::*;

    fn free() -> SocketAddr {
        TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap()
    }

    #[test]
    fn a_socket_that_was_given_is_kept_with_the_connections_in_its_queue() {
        let given = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = given.local_addr().unwrap();
        let mut queued = TcpStream::connect(address).unwrap();
        let other = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let unwanted = other.local_addr().unwrap();
        let missing = free();
        let sockets = Sockets::take(&[missing, address], vec![other.into(), given.into()]).unwrap();
        assert!(TcpStream::connect(missing).is_ok());
        assert!(TcpStream::connect(unwanted).is_err());
        let kept = TcpListener::from(sockets.0[1].1.try_clone().unwrap());
        drop(kept.accept().unwrap());
        assert_eq!(queued.read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn an_address_that_is_taken_is_named() {
        let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
        let _holder = TcpListener::bind(taken).unwrap();
        let refusal = format!("{:#}", Sockets::open(&[taken]).unwrap_err());
        assert!(refusal.contains(&taken.to_string()), "{refusal}");
    }
}
