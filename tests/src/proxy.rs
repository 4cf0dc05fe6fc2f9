//! A TCP proxy that can hold every byte without closing a connection, for tests of a silent network.

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

const BUFFER: usize = 16 * 1024;

/// A running proxy; dropping it closes all its connections.
pub struct Proxy {
    /// Its port on 127.0.0.1.
    pub port: u16,
    frozen: watch::Sender<bool>,
    _server: JoinSet<()>,
}

impl Proxy {
    /// Listens on a port and relays to another, both on 127.0.0.1.
    ///
    /// # Errors
    /// When the port is taken.
    pub async fn start(port: u16, target: u16) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.context("opening the proxy's port")?;
        let (frozen, state) = watch::channel(false);
        let mut server = JoinSet::new();
        server.spawn(serve(listener, target, state));
        Ok(Self { port, frozen, _server: server })
    }

    /// Holds all bytes, of present and of new connections.
    pub fn freeze(&self) {
        self.frozen.send_replace(true);
    }

    /// Lets the held bytes and all later ones pass.
    pub fn thaw(&self) {
        self.frozen.send_replace(false);
    }
}

async fn serve(listener: TcpListener, target: u16, state: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((client, _)) = accepted {
                    connections.spawn(relay(client, target, state.clone()));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn relay(client: TcpStream, target: u16, state: watch::Receiver<bool>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", target)).await else { return };
    let (client_reads, client_writes) = client.into_split();
    let (server_reads, server_writes) = server.into_split();
    // Either side's end ends both: what Redis closes, its client must see closed.
    tokio::select! {
        () = pass(client_reads, server_writes, state.clone()) => {}
        () = pass(server_reads, client_writes, state) => {}
    }
}

async fn pass(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mut state: watch::Receiver<bool>,
) {
    let mut buffer = vec![0; BUFFER];
    while let Ok(length) = from.read(&mut buffer).await {
        let thawed = state.wait_for(|frozen| !frozen).await.is_ok();
        if length == 0 || !thawed || to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_frozen_proxy_holds_bytes_and_connections() {
        let target = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let proxy = Proxy::start(0, target.local_addr().unwrap().port()).await;
        assert!(proxy.is_ok());
        let folder = tempfile::tempdir().unwrap();
        let port = crate::ports::Ports::of_folder(folder.path()).unwrap().claim("proxy").unwrap();
        let proxy = Proxy::start(port, target.local_addr().unwrap().port()).await.unwrap();
        let mut client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let (mut server, _) = target.accept().await.unwrap();
        proxy.freeze();
        client.write_all(b"held").await.unwrap();
        let mut text = [0; 4];
        let early = tokio::time::timeout(Duration::from_millis(100), server.read_exact(&mut text)).await;
        assert!(early.is_err());
        proxy.thaw();
        server.read_exact(&mut text).await.unwrap();
        assert_eq!(&text, b"held");
    }
}
