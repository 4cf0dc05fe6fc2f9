//! A TCP proxy that can stop forwarding without closing a connection, be slow, or break one off at a large request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// A proxy in front of one address.
pub(crate) struct FreezingProxy {
    address: SocketAddr,
    frozen: watch::Sender<bool>,
    requests: Arc<Requests>,
    _running: JoinSet<()>,
}

/// What becomes of requests; of answers nothing does.
struct Requests {
    /// Bytes sent at once at which a connection breaks.
    break_at: AtomicUsize,
    /// Milliseconds that each takes longer.
    late: AtomicU64,
}

impl FreezingProxy {
    /// Starts one on a free port of the loopback.
    pub(crate) async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (frozen, watched) = watch::channel(false);
        let requests = Arc::new(Requests::untouched());
        let touched = Arc::clone(&requests);
        let mut running = JoinSet::new();
        running.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                connections.spawn(relay(client, target, watched.clone(), Arc::clone(&touched)));
            }
        });
        Self { address, frozen, requests, _running: running }
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
        self.requests.break_at.store(bytes, Ordering::SeqCst);
    }

    /// Makes each request take so much longer.
    pub(crate) fn slow_down(&self, late: Duration) {
        self.requests.late.store(late.as_millis().try_into().unwrap(), Ordering::SeqCst);
    }

    /// Whether it has.
    pub(crate) fn has_broken(&self) -> bool {
        self.requests.break_at.load(Ordering::SeqCst) == usize::MAX
    }

    /// Forwards again, what was held back first.
    pub(crate) fn thaw(&self) {
        self.frozen.send_replace(false);
    }
}

impl Requests {
    fn untouched() -> Self {
        Self { break_at: AtomicUsize::new(usize::MAX), late: AtomicU64::new(0) }
    }
}

async fn relay(client: TcpStream, target: SocketAddr, frozen: watch::Receiver<bool>, requests: Arc<Requests>) {
    let server = TcpStream::connect(target).await.unwrap();
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let answers = Requests::untouched();
    let up = forward(&mut from_client, &mut to_server, frozen.clone(), &requests);
    let down = forward(&mut from_server, &mut to_client, frozen, &answers);
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
    touched: &Requests,
) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let Ok(length @ 1..) = from.read(&mut buffer).await else { return };
        if length >= touched.break_at.load(Ordering::SeqCst) {
            touched.break_at.store(usize::MAX, Ordering::SeqCst);
            return;
        }
        tokio::time::sleep(Duration::from_millis(touched.late.load(Ordering::SeqCst))).await;
        if frozen.wait_for(|frozen| !frozen).await.is_err() || to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
