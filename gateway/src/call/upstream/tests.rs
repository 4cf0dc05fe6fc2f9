//! Tests of what a connection that breaks says about the instance.

use pingora::http::RequestHeader;
use protocol::envelope::{Generation, seal_request};
use protocol::sealing::InstanceKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::metrics::Metrics;

fn network() -> Network {
    let bounds = Bounds { keep: Duration::from_secs(600), each: 9, all: 9 };
    let pool = Pool::new(bounds, Arc::new(Metrics::new().unwrap()));
    Network::new(None, Duration::from_secs(5), pool)
}

fn outgoing() -> Outgoing {
    let sealed = seal_request(Generation::Sdk03, &InstanceKey::generate(), "/chat", b"{}", true, &[]).unwrap();
    let mut head = Box::new(RequestHeader::build("POST", b"/chat", None).unwrap());
    head.insert_header("content-length", sealed.body.len()).unwrap();
    Outgoing { head, body: sealed.body, opener: sealed.opener }
}

/// Both ends of a connection to somebody who listens, and where that is.
async fn connection(network: &Network) -> (Stream, TcpStream, Place) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let near = network.connect(&network.peer(address)).await.ok().unwrap();
    let (far, _) = listener.accept().await.unwrap();
    (near, far, Place { instance: InstanceId::random(), address })
}

#[tokio::test]
async fn a_connection_that_was_closed_before_the_request_came_has_not_seen_it() {
    let network = network();
    let (near, far, place) = connection(&network).await;
    drop(far);
    let broken = network.exchange(near, place, &outgoing()).await.err().unwrap();
    assert!(broken.unseen && was_closed(&broken.error), "{}", broken.error);
}

#[tokio::test]
async fn an_instance_that_read_the_request_and_hung_up_has_seen_it() {
    let network = network();
    let (near, mut far, place) = connection(&network).await;
    let request = outgoing();
    let reads = async {
        let mut read = Vec::new();
        while !read.ends_with(&request.body) {
            assert_ne!(far.read_buf(&mut read).await.unwrap(), 0);
        }
        drop(far);
    };
    let (answer, ()) = tokio::join!(network.exchange(near, place, &request), reads);
    let broken = answer.err().unwrap();
    assert!(!broken.unseen && was_closed(&broken.error), "{}", broken.error);
}

/// A request of which the kernel takes a part at once, but not all.
fn large() -> Outgoing {
    let mut request = outgoing();
    request.body = vec![b'x'; 32 << 20].into();
    request.head.insert_header("content-length", request.body.len()).unwrap();
    request
}

#[tokio::test]
async fn a_request_of_which_nothing_is_taken_any_more_is_given_up() {
    let network = network();
    let (near, _far, place) = connection(&network).await;
    tokio::time::pause();
    let began = tokio::time::Instant::now();
    let broken = network.exchange(near, place, &large()).await.err().unwrap();
    assert_eq!(*broken.error.etype(), ErrorType::WriteTimedout);
    assert!((30..40).contains(&began.elapsed().as_secs()), "after {:?}", began.elapsed());
}

#[tokio::test]
async fn a_request_that_is_taken_slowly_is_sent_to_its_end() {
    let network = network();
    let (near, mut far, place) = connection(&network).await;
    tokio::time::pause();
    let began = tokio::time::Instant::now();
    let reads = async {
        let mut left = 32 << 20;
        while left > 0 {
            tokio::time::sleep(Duration::from_secs(20)).await;
            let mut piece = vec![0; left.min(4 << 20)];
            far.read_exact(&mut piece).await.unwrap();
            left -= piece.len();
        }
        far.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        far
    };
    let request = large();
    let (answer, _far) = tokio::join!(network.exchange(near, place, &request), reads);
    assert_eq!(answer.ok().unwrap().status, StatusCode::NO_CONTENT);
    assert!(began.elapsed() > Duration::from_secs(100));
}
