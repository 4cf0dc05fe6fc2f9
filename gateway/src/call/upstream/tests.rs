//! Tests of what a connection that breaks says about the instance.

use pingora::http::RequestHeader;
use protocol::envelope::{Generation, seal_request};
use protocol::sealing::InstanceKey;
use tokio::io::AsyncReadExt;
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
