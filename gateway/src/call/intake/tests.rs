//! The bounds of request bodies, one by one and together.

use super::super::scripted::ScriptedClient;
use super::*;

fn sends(pieces: &[usize]) -> ScriptedClient {
    let body = pieces.iter().map(|size| Ok(Bytes::from(vec![b'x'; *size]))).collect();
    ScriptedClient { body, ..ScriptedClient::default() }
}

fn intake(limit: usize, total: usize) -> Intake {
    Intake::new(limit, total, Duration::from_secs(300))
}

async fn refused(intake: &Intake, client: &mut ScriptedClient, announced: Option<u64>) -> NoBody {
    intake.read(client, announced).await.err().unwrap()
}

#[tokio::test]
async fn a_body_is_read_whole_and_asked_for_if_the_client_waits() {
    let mut client = ScriptedClient { waits: true, ..sends(&[3, 4]) };
    let body = intake(7, STEP).read(&mut client, Some(7)).await.unwrap();
    assert_eq!((body.bytes.len(), client.waits), (7, false));
}

#[tokio::test]
async fn a_body_announced_too_large_is_refused_unread() {
    let mut client = ScriptedClient { waits: true, ..sends(&[8]) };
    let refusal = refused(&intake(7, STEP), &mut client, Some(8)).await;
    assert_eq!(refusal, NoBody::Refused(Refusal::BodyTooLarge { limit: 7 }));
    assert_eq!((client.body.len(), client.waits), (1, true));
}

#[tokio::test]
async fn a_body_that_grows_too_large_is_refused() {
    let refusal = refused(&intake(7, STEP), &mut sends(&[4, 4]), None).await;
    assert_eq!(refusal, NoBody::Refused(Refusal::BodyTooLarge { limit: 7 }));
}

#[tokio::test]
async fn all_bodies_together_have_a_bound_that_is_given_back() {
    let intake = intake(STEP, STEP);
    let first = intake.read(&mut sends(&[1]), None).await.unwrap();
    assert_eq!(refused(&intake, &mut sends(&[1]), None).await, NoBody::Refused(Refusal::Overloaded(Scarce::Bodies)));
    drop(first);
    assert!(intake.read(&mut sends(&[1]), None).await.is_ok());
}

#[tokio::test]
async fn slow_and_lost_clients_are_told_apart() {
    let intake = intake(7, STEP);
    let ends = |unread| ScriptedClient { body: [Err(unread)].into(), ..ScriptedClient::default() };
    assert_eq!(refused(&intake, &mut ends(Unread::Gone), None).await, NoBody::Gone);
    let refusal = refused(&intake, &mut ends(Unread::Refused(Refusal::BodyTimeout)), None).await;
    assert_eq!(refusal, NoBody::Refused(Refusal::BodyTimeout));
}

#[tokio::test]
async fn memory_is_taken_for_bytes_that_came_not_for_those_announced() {
    let intake = intake(64 * FIRST_ROOM, 2 * FIRST_ROOM);
    let announced = Some(64 * FIRST_ROOM as u64);
    let first = intake.read(&mut sends(&[1]), announced).await.unwrap();
    let second = intake.read(&mut sends(&[1]), announced).await.unwrap();
    let overloaded = NoBody::Refused(Refusal::Overloaded(Scarce::Bodies));
    assert_eq!(refused(&intake, &mut sends(&[1]), announced).await, overloaded);
    drop((first, second));
    assert_eq!(refused(&intake, &mut sends(&[FIRST_ROOM, FIRST_ROOM, 1]), announced).await, overloaded);
    let whole = intake.read(&mut sends(&[FIRST_ROOM, FIRST_ROOM]), announced).await.unwrap();
    assert_eq!(whole.bytes.len(), 2 * FIRST_ROOM);
}

#[tokio::test]
async fn a_small_body_takes_no_more_than_it_announced() {
    let intake = intake(64 * FIRST_ROOM, FIRST_ROOM);
    let small = async || intake.read(&mut sends(&[10, 10]), Some(20)).await;
    let held = [small().await, small().await, small().await, small().await];
    assert!(held.iter().all(Result::is_ok));
    assert!(small().await.is_err());
}

#[test]
fn room_doubles_up_to_what_is_expected() {
    let expected = 5 * FIRST_ROOM;
    let mut rooms = vec![0];
    while rooms.last() != Some(&expected) {
        rooms.push(room(*rooms.last().unwrap(), expected));
    }
    assert_eq!(rooms, [0, FIRST_ROOM, 2 * FIRST_ROOM, 4 * FIRST_ROOM, expected]);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_trickles_has_to_be_there_in_time_as_a_whole() {
    let trickles = || ScriptedClient { pace: Duration::from_secs(20), ..sends(&[1; 6]) };
    let quick = Intake::new(7, STEP, Duration::from_secs(119));
    assert_eq!(refused(&quick, &mut trickles(), None).await, NoBody::Refused(Refusal::BodyTimeout));
    assert!(intake(7, STEP).read(&mut trickles(), None).await.is_ok());
    assert_eq!(quick.steps.available_permits(), 1);
}
