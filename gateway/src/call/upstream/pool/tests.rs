//! Tests of the connections that wait.

use pingora::protocols::l4::stream::Stream as Plain;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use super::*;

const LONG: Duration = Duration::from_secs(600);

/// Somebody who accepts connections.
struct Server(TcpListener);

impl Server {
    async fn start() -> Self {
        Self(TcpListener::bind(("127.0.0.1", 0)).await.unwrap())
    }

    fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    /// Both ends of a new connection.
    async fn connection(&self) -> (Stream, TcpStream) {
        let stream: Plain = TcpStream::connect(self.address()).await.unwrap().into();
        (Box::new(stream), self.0.accept().await.unwrap().0)
    }
}

fn pool(keep: Duration, each: usize, all: usize) -> Arc<Pool> {
    Pool::new(Bounds { keep, each, all }, Arc::new(Metrics::new().unwrap()))
}

/// Until the gateway's end of a connection is closed.
async fn closes(mut far: TcpStream) -> bool {
    tokio::time::timeout(Duration::from_secs(5), far.read(&mut [0])).await.is_ok_and(|read| read.unwrap_or(0) == 0)
}

#[tokio::test]
async fn the_connection_that_came_last_is_taken_first_and_only_for_its_instance_and_address() {
    let (server, pool, instance) = (Server::start().await, pool(LONG, 9, 9), InstanceId::random());
    let (first, _far) = server.connection().await;
    let (second, _far) = server.connection().await;
    let (old, new) = (first.id(), second.id());
    pool.put(instance, server.address(), first);
    pool.put(instance, server.address(), second);
    assert_eq!(pool.metrics.connections.waiting.get(), 2);
    assert!(pool.take(InstanceId::random(), server.address()).is_none());
    assert_eq!(pool.take(instance, server.address()).unwrap().id(), new);
    assert_eq!(pool.take(instance, server.address()).unwrap().id(), old);
    let (third, far) = server.connection().await;
    pool.put(instance, server.address(), third);
    assert!(pool.take(instance, ([127, 0, 0, 1], 1).into()).is_none(), "an instance that has moved");
    assert!(closes(far).await);
    assert_eq!(pool.metrics.connections.waiting.get(), 0);
}

#[tokio::test]
async fn there_are_bounds_for_one_instance_and_for_all() {
    let (server, pool) = (Server::start().await, pool(LONG, 2, 3));
    let (one, other) = (InstanceId::random(), InstanceId::random());
    let mut fars = Vec::new();
    for instance in [one, one, one, other, other] {
        let (stream, far) = server.connection().await;
        pool.put(instance, server.address(), stream);
        fars.push(far);
    }
    assert_eq!(pool.metrics.connections.waiting.get(), 3);
    assert!(closes(fars.remove(0)).await, "the one of its instance that waited longest");
    assert!(closes(fars.remove(3)).await, "one too many in all");
    let none = self::pool(LONG, 0, 9);
    let (stream, far) = server.connection().await;
    none.put(one, server.address(), stream);
    assert!(closes(far).await);
}

#[tokio::test]
async fn what_the_other_side_closed_or_talked_on_is_not_used_again() {
    let (server, pool, instance) = (Server::start().await, pool(LONG, 9, 9), InstanceId::random());
    for talks in [false, true] {
        let (mut stream, mut far) = server.connection().await;
        if talks {
            far.write_all(b"x").await.unwrap();
        } else {
            drop(far);
        }
        // Until it has arrived.
        assert_eq!(stream.try_peek(&mut [0]).await.is_ok(), talks);
        pool.put(instance, server.address(), stream);
        assert!(pool.take(instance, server.address()).is_none());
    }
}

#[tokio::test]
async fn what_waited_too_long_or_belongs_to_no_instance_is_closed() {
    let server = Server::start().await;
    let (known, unknown) = (InstanceId::random(), InstanceId::random());
    for (keep, instance) in [(Duration::ZERO, known), (LONG, unknown)] {
        let pool = pool(keep, 9, 9);
        let (stream, far) = server.connection().await;
        pool.put(instance, server.address(), stream);
        pool.sweep(|instance| instance == known);
        assert!(closes(far).await);
        assert_eq!(pool.metrics.connections.waiting.get(), 0);
    }
    let pool = pool(LONG, 9, 9);
    let (stream, _far) = server.connection().await;
    pool.put(known, server.address(), stream);
    pool.sweep(|instance| instance == known);
    assert!(pool.take(known, server.address()).is_some());
}
