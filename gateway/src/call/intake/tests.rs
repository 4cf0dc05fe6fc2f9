//! The bounds of request bodies, one by one and together.

use super::super::scripted::ScriptedClient;
use super::*;

fn sends(pieces: &[usize]) -> ScriptedClient {
    let body = pieces.iter().map(|size| Ok(Bytes::from(vec![b'x'; *size]))).collect();
    ScriptedClient { body, ..ScriptedClient::default() }
}

async fn refused(intake: &Intake, client: &mut ScriptedClient, announced: Option<u64>) -> NoBody {
    intake.read(client, announced).await.err().unwrap()
}

#[tokio::test]
async fn a_body_is_read_whole_and_asked_for_if_the_client_waits() {
    let mut client = ScriptedClient { waits: true, ..sends(&[3, 4]) };
    let body = Intake::new(7, STEP).read(&mut client, Some(7)).await.unwrap();
    assert_eq!((body.bytes.len(), client.waits), (7, false));
}

#[tokio::test]
async fn a_body_announced_too_large_is_refused_unread() {
    let mut client = ScriptedClient { waits: true, ..sends(&[8]) };
    let refusal = refused(&Intake::new(7, STEP), &mut client, Some(8)).await;
    assert_eq!(refusal, NoBody::Refused(Refusal::BodyTooLarge { limit: 7 }));
    assert_eq!((client.body.len(), client.waits), (1, true));
}

#[tokio::test]
async fn a_body_that_grows_too_large_is_refused() {
    let refusal = refused(&Intake::new(7, STEP), &mut sends(&[4, 4]), None).await;
    assert_eq!(refusal, NoBody::Refused(Refusal::BodyTooLarge { limit: 7 }));
}

#[tokio::test]
async fn all_bodies_together_have_a_bound_that_is_given_back() {
    let intake = Intake::new(STEP, STEP);
    let first = intake.read(&mut sends(&[1]), None).await.unwrap();
    assert_eq!(refused(&intake, &mut sends(&[1]), None).await, NoBody::Refused(Refusal::Overloaded));
    drop(first);
    assert!(intake.read(&mut sends(&[1]), None).await.is_ok());
}

#[tokio::test]
async fn slow_and_lost_clients_are_told_apart() {
    let intake = Intake::new(7, STEP);
    let ends = |unread| ScriptedClient { body: [Err(unread)].into(), ..ScriptedClient::default() };
    assert_eq!(refused(&intake, &mut ends(Unread::Gone), None).await, NoBody::Gone);
    let refusal = refused(&intake, &mut ends(Unread::Timeout), None).await;
    assert_eq!(refusal, NoBody::Refused(Refusal::BodyTimeout));
}
