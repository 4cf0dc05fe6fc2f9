//! Tests of `lease`: how a call asks, for how long, and when it gives up.

use super::stand_in::StandIn;
use super::*;

/// A book of nothing.
struct Empty;

impl Book for Empty {
    fn ask(&self, _: &Subject, _: u64, _: Moment) -> Option<Ask> {
        None
    }
    fn answer(&self, _: &Subject, _: &Ask, _: Option<&Answer>, _: Moment) {}
    fn survey(&self, _: bool, _: Moment, _: &mut Survey) {}
    fn lapse(&self) {}
    fn close(&self) {}
}

fn subject() -> Subject {
    Subject::Instance(InstanceId::random())
}

#[test]
fn a_nudge_arrives_unless_there_is_no_room_for_it() {
    let mut stand_in = StandIn::new();
    let first = subject();
    assert!(stand_in.leases.nudge(first));
    assert_eq!(stand_in.answer(&Empty), [first]);
    for _ in 0..WAITING {
        assert!(stand_in.leases.nudge(first));
    }
    assert!(!stand_in.leases.nudge(first));
    assert_eq!(stand_in.answer(&Empty).len(), WAITING);
    assert!(stand_in.leases.nudge(first));
}

#[tokio::test]
async fn a_call_asks_until_it_has_asked_often_enough() {
    let mut stand_in = StandIn::new();
    let leases = Arc::clone(&stand_in.leases);
    let mut patience = leases.patience();
    assert!(!patience.has_asked());
    for round in 1..=ROUNDS {
        assert!(stand_in.serve(&Empty, patience.ask(vec![subject()])).await, "round {round}");
        assert!(patience.has_asked());
    }
    assert!(!stand_in.serve(&Empty, patience.ask(vec![subject()])).await);
    assert!(stand_in.answer(&Empty).is_empty());
}

#[tokio::test]
async fn a_call_asks_nobody_without_a_desk_or_after_its_time() {
    let metrics = Arc::new(Metrics::new().unwrap());
    let (leases, questions) = Leases::new(Duration::from_hours(1), Arc::clone(&metrics));
    drop(questions);
    assert!(!leases.patience().ask(vec![subject()]).await);
    let (leases, _questions) = Leases::new(Duration::ZERO, metrics);
    assert!(!leases.patience().ask(vec![subject()]).await);
}

#[tokio::test]
async fn a_call_waits_no_longer_than_the_lease_lives() {
    let (leases, _questions) = Leases::new(Duration::from_millis(50), Arc::new(Metrics::new().unwrap()));
    let mut patience = leases.patience();
    assert!(patience.ask(vec![subject()]).await, "nobody answered, and it may go on without");
    assert!(leases.moment().time >= Duration::from_millis(50));
}

#[tokio::test]
async fn a_redis_that_settles_is_waited_for_and_one_that_is_there_or_away_is_not() {
    let stand_in = StandIn::new();
    assert!(!stand_in.leases.settled().await, "it is there");
    stand_in.settle(false);
    let (settled, ()) = tokio::join!(stand_in.leases.settled(), async { stand_in.settle(true) });
    assert!(settled);
    let (away, _questions) = Leases::new(Duration::ZERO, Arc::new(Metrics::new().unwrap()));
    assert!(!away.settled().await);
}

#[test]
fn decisions_are_counted_by_whether_they_were_asked_for() {
    let stand_in = StandIn::new();
    stand_in.leases.count(Limit::Quota, true);
    let count = |way| stand_in.metrics.limits.decisions.with_label_values(&["quota", way]).get();
    assert_eq!((count("asked"), count("local")), (1, 0));
}

#[test]
fn each_limit_has_claims_of_its_own() {
    let (user, chute) = (UserId::random(), ChuteId::random());
    let day = NaiveDate::from_ymd_opt(2025, 10, 9).unwrap();
    let bucket = Bucket::Default;
    for (subject, key) in [
        (Subject::Rate(user, Some(chute)), Key::rate_lease(user, Some(chute))),
        (Subject::AtOnce(user, None), Key::at_once_lease(user, None)),
        (Subject::Quota(user, bucket, day), Key::quota_lease(user, bucket, day)),
    ] {
        assert_eq!(subject.key().to_string(), key.to_string());
    }
}
