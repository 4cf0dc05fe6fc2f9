//! A TCP proxy that can stop forwarding without closing a connection, or break one off at a large request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// A proxy in front of one address.
pub(crate) struct FreezingProxy {
    address: SocketAddr,
    frozen: watch::Sender<bool>,
    breaks_at: Arc<AtomicUsize>,
    _running: JoinSet<()>,
}

impl FreezingProxy {
    /// Starts one on a free port of the loopback.
    pub(crate) async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (frozen, watched) = watch::channel(false);
        let breaks_at = Arc::new(AtomicUsize::new(usize::MAX));
        let breaking = Arc::clone(&breaks_at);
        let mut running = JoinSet::new();
        running.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                connections.spawn(relay(client, target, watched.clone(), Arc::clone(&breaking)));
            }
        });
        Self { address, frozen, breaks_at, _running: running }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Forwards nothing more; connections stay open and new ones are accepted.
    pub(crate) fn freeze(&self) {
        self.frozen.send_replace(true);
    }

    /// Breaks the next connection off on which a client sends so many bytes at once.
    pub(crate) fn break_at(&self, bytes: usize) {
        self.breaks_at.store(bytes, Ordering::SeqCst);
    }

    /// Whether it has.
    pub(crate) fn has_broken(&self) -> bool {
        self.breaks_at.load(Ordering::SeqCst) == usize::MAX
    }

    /// Forwards again, what was held back first.
    pub(crate) fn thaw(&self) {
        self.frozen.send_replace(false);
    }
}

async fn relay(client: TcpStream, target: SocketAddr, frozen: watch::Receiver<bool>, breaks_at: Arc<AtomicUsize>) {
    let server = TcpStream::connect(target).await.unwrap();
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let up = forward(&mut from_client, &mut to_server, frozen.clone(), &breaks_at);
    let never = AtomicUsize::new(usize::MAX);
    let down = forward(&mut from_server, &mut to_client, frozen, &never);
    // Either end closing ends both directions.
    tokio::select! {
        () = up => {}
        () = down => {}
    }
}

async fn forward(
    from: &mut (impl AsyncReadExt + Unpin),
    to: &mut (impl AsyncWriteExt + Unpin),
    mut frozen: watch::Receiver<bool>,
    breaks_at: &AtomicUsize,
) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let Ok(length @ 1..) = from.read(&mut buffer).await else { return };
        if length >= breaks_at.load(Ordering::SeqCst) {
            breaks_at.store(usize::MAX, Ordering::SeqCst);
            return;
        }
        if frozen.wait_for(|frozen| !frozen).await.is_err() || to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
