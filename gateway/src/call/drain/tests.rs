//! When a connection goes on after a refusal.

use bytes::Bytes;

use super::super::downstream::Unread;
use super::super::scripted::ScriptedClient;
use super::*;
use crate::refusal::Refusal;

async fn closes(body: Vec<Result<Bytes, Unread>>, waits: bool) -> bool {
    let mut client = ScriptedClient { body: body.into(), waits, ..ScriptedClient::default() };
    drain(&mut client).await;
    client.closes
}

#[tokio::test]
async fn a_connection_goes_on_only_after_the_end_of_the_body() {
    let piece = Bytes::from(vec![0; 1 << 20]);
    assert!(!closes(vec![], false).await);
    assert!(!closes(vec![Ok(piece.clone())], false).await);
    assert!(closes(vec![Ok(piece.clone()); 65], false).await);
    assert!(closes(vec![Ok(piece.clone()), Err(Unread::Refused(Refusal::BodyTimeout))], false).await);
    assert!(closes(vec![Ok(piece)], true).await);
}
