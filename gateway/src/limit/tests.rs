//! Tests of `limit`.

use protocol::ids::ImageId;
use protocol::lease::Redis;
use protocol::slug::Slug;

use super::*;
use crate::lease::stand_in::StandIn;
use crate::lease::{Book, Survey};

const DEFAULT: Caps = Caps { per_minute: 3, at_once: 2 };

pub(super) fn user(permissions: u64) -> UserEntry {
    UserEntry {
        id: UserId::random(),
        username: "caller".into(),
        generation: 0,
        permissions,
        rate_per_minute: None,
        max_concurrent: None,
        quotas: [].into(),
        deleted: false,
    }
}

pub(super) fn chute() -> Chute {
    Chute {
        id: ChuteId::random(),
        name: "chute".into(),
        slug: Slug::parse("chute").unwrap(),
        owner: UserId::random(),
        public: true,
        shares: vec![],
        template: None,
        cords: vec![],
        image: ImageId::random(),
        image_owner: UserId::random(),
        model: None,
        price: None,
        concurrency: 1,
        multiplier: 1.0,
        invocations: 0,
        rate_per_minute: None,
        max_concurrent: None,
        maintenance: false,
        instances: vec![],
    }
}

/// Limits of a gateway that is alone and has no Redis: it has the whole limit.
fn limits(default: Caps) -> Arc<Limits> {
    let (leases, _) = Leases::new(Duration::from_secs(1), Arc::new(crate::metrics::Metrics::new().unwrap()));
    Arc::new(Limits::new(default, leases))
}

fn at(seconds: u64) -> Moment {
    Moment { time: Duration::from_secs(seconds), redis: Redis::Away, gateways: 1 }
}

/// A call at this second.
fn take(limits: &Arc<Limits>, user: &UserEntry, chute: &Chute, second: u64) -> Result<Permit, Refusal> {
    match limits.try_take(user, chute, at(second)) {
        Entrance::Open(taken) => Ok(Permit { taken: Some(taken) }),
        Entrance::Closed(refusal) => Err(refusal),
        Entrance::Ask(subjects) => panic!("without redis nothing is asked: {subjects:?}"),
    }
}

fn refusal(taken: Result<Permit, Refusal>) -> Refusal {
    taken.err().expect("the call is refused")
}

#[test]
fn a_user_is_limited_over_all_chutes_together() {
    let limits = limits(DEFAULT);
    let user = user(0);
    for _ in 0..3 {
        drop(take(&limits, &user, &chute(), 0).unwrap());
    }
    let standing = Standing { limit: 3, remaining: 0, reset: 61 };
    let refused = refusal(take(&limits, &user, &chute(), 0));
    assert_eq!(refused, Refusal::RateLimited { whose: Whose::User, standing });
    assert!(take(&limits, &user, &chute(), 61).is_ok());
}

#[test]
fn a_chute_can_be_stricter_than_the_user() {
    let limits = limits(DEFAULT);
    let (user, other) = (user(0), chute());
    let strict = Chute { rate_per_minute: Some(1), ..chute() };
    let permit = take(&limits, &user, &strict, 0).unwrap();
    assert_eq!(permit.standing(), Some(Standing { limit: 1, remaining: 0, reset: 61 }));
    let standing = Standing { limit: 1, remaining: 0, reset: 61 };
    let refused = refusal(take(&limits, &user, &strict, 0));
    assert_eq!(refused, Refusal::RateLimited { whose: Whose::Chute, standing });
    assert!(take(&limits, &user, &other, 0).is_ok());
}

#[test]
fn calls_at_once_are_limited_and_free_again_when_they_end() {
    let limits = limits(DEFAULT);
    let (user, chute) = (user(0), Chute { max_concurrent: Some(1), ..chute() });
    let first = take(&limits, &user, &chute, 0).unwrap();
    let refused = refusal(take(&limits, &user, &chute, 0));
    assert!(matches!(refused, Refusal::TooManyAtOnce { whose: Whose::Chute, standing } if standing.limit == 1));
    drop(first);
    assert!(take(&limits, &user, &chute, 0).is_ok());
}

#[test]
fn a_refused_call_takes_nothing() {
    let limits = limits(DEFAULT);
    let (user, strict) = (user(0), Chute { max_concurrent: Some(0), ..chute() });
    for _ in 0..10 {
        refusal(take(&limits, &user, &strict, 0));
    }
    let permit = take(&limits, &user, &chute(), 0).unwrap();
    assert_eq!(permit.standing().map(|standing| standing.remaining), Some(2));
    assert!(take(&limits, &user, &chute(), 0).is_ok());
}

#[test]
fn an_override_of_the_user_holds_on_every_chute_without_its_own() {
    let limits = limits(DEFAULT);
    let user = UserEntry { rate_per_minute: Some(10), max_concurrent: Some(10), ..user(0) };
    let chute = chute();
    let permits: Vec<Permit> = (0..10).map(|_| take(&limits, &user, &chute, 0).unwrap()).collect();
    assert!(matches!(refusal(take(&limits, &user, &chute, 0)), Refusal::RateLimited { whose: Whose::User, .. }));
    drop(permits);
}

#[tokio::test]
async fn an_unlimited_user_is_not_counted() {
    let limits = limits(DEFAULT);
    let (user, chute) = (user(permission::UNLIMITED), chute());
    for _ in 0..100 {
        assert!(limits.take(&user, &chute).await.unwrap().standing().is_none());
    }
    assert!(limits.users.is_empty());
}

#[test]
fn only_a_chute_with_limits_of_its_own_is_counted_beside_the_user() {
    let limits = limits(DEFAULT);
    let (user, own) = (user(0), Chute { max_concurrent: Some(1), ..chute() });
    let _permits = [take(&limits, &user, &chute(), 0).unwrap(), take(&limits, &user, &own, 0).unwrap()];
    assert_eq!(limits.users.get(&user.id).unwrap().chutes.keys().collect::<Vec<_>>(), [&own.id]);
}

#[test]
fn idle_users_are_forgotten_and_busy_ones_are_not() {
    let limits = limits(DEFAULT);
    let (busy, idle, chute) = (user(0), user(0), chute());
    let permit = take(&limits, &busy, &chute, 0).unwrap();
    drop(take(&limits, &idle, &chute, 0).unwrap());
    limits.sweep(at(60));
    assert_eq!(limits.users.len(), 2);
    limits.sweep(at(61));
    assert_eq!(limits.users.len(), 1);
    drop(permit);
    limits.sweep(at(61));
    assert!(limits.users.is_empty());
}

#[test]
fn many_threads_never_exceed_what_is_allowed_at_once() {
    let limits = limits(Caps { per_minute: u32::MAX, at_once: 5 });
    let (user, chute) = (user(0), chute());
    let in_flight = std::sync::atomic::AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..2_000 {
                    if let Ok(permit) = take(&limits, &user, &chute, 0) {
                        let now = in_flight.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1;
                        assert!(now <= 5, "{now} at once");
                        in_flight.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                        drop(permit);
                    }
                }
            });
        }
    });
    let permits: Vec<Permit> = (0..5).map(|_| take(&limits, &user, &chute, 0).unwrap()).collect();
    assert!(take(&limits, &user, &chute, 0).is_err());
    drop(permits);
}

/// Limits of a gateway with a Redis.
fn shared(stand_in: &StandIn) -> Arc<Limits> {
    Arc::new(Limits::new(DEFAULT, Arc::clone(&stand_in.leases)))
}

#[tokio::test]
async fn a_call_asks_for_slots_and_the_next_finds_them_ready() {
    let mut stand_in = StandIn::new();
    let (limits, user, chute) = (shared(&stand_in), user(0), chute());
    let first = stand_in.serve(&*limits, limits.take(&user, &chute)).await.unwrap();
    assert_eq!(first.standing().map(|standing| (standing.limit, standing.remaining)), Some((3, 2)));
    stand_in.answer(&*limits);
    limits.take(&user, &chute).await.unwrap();
    let count = |way| stand_in.metrics.limits.decisions.with_label_values(&["caller", way]).get();
    assert_eq!((count("asked"), count("local")), (1, 1));
}

#[tokio::test]
async fn what_other_gateways_let_in_counts() {
    let mut stand_in = StandIn::new();
    let (limits, user, chute) = (shared(&stand_in), user(0), chute());
    stand_in.held_elsewhere(&Subject::Rate(user.id, None), 2);
    drop(stand_in.serve(&*limits, limits.take(&user, &chute)).await.unwrap());
    let refused = refusal(stand_in.serve(&*limits, limits.take(&user, &chute)).await);
    assert!(matches!(refused, Refusal::RateLimited { whose: Whose::User, standing } if standing.remaining == 0));
    let busy = self::user(0);
    stand_in.held_elsewhere(&Subject::AtOnce(busy.id, None), 2);
    let refused = refusal(stand_in.serve(&*limits, limits.take(&busy, &chute)).await);
    assert!(matches!(refused, Refusal::TooManyAtOnce { whose: Whose::User, .. }));
}

#[tokio::test]
async fn a_chutes_own_limit_is_shared_too() {
    let mut stand_in = StandIn::new();
    let (limits, user) = (shared(&stand_in), user(0));
    let strict = Chute { max_concurrent: Some(1), ..chute() };
    stand_in.held_elsewhere(&Subject::AtOnce(user.id, Some(strict.id)), 1);
    let refused = refusal(stand_in.serve(&*limits, limits.take(&user, &strict)).await);
    assert!(matches!(refused, Refusal::TooManyAtOnce { whose: Whose::Chute, .. }));
    let slow = Chute { rate_per_minute: Some(1), ..chute() };
    stand_in.held_elsewhere(&Subject::Rate(user.id, Some(slow.id)), 1);
    let refused = refusal(stand_in.serve(&*limits, limits.take(&user, &slow)).await);
    assert!(matches!(refused, Refusal::RateLimited { whose: Whose::Chute, .. }));
}

#[tokio::test]
async fn a_user_with_every_other_permission_is_limited() {
    let mut stand_in = StandIn::new();
    let (limits, user, chute) = (shared(&stand_in), user(!permission::UNLIMITED), chute());
    for _ in 0..3 {
        assert!(stand_in.serve(&*limits, limits.take(&user, &chute)).await.unwrap().standing().is_some());
    }
    let refused = refusal(stand_in.serve(&*limits, limits.take(&user, &chute)).await);
    assert!(matches!(refused, Refusal::RateLimited { .. }));
}

#[tokio::test]
async fn a_call_whose_question_nobody_takes_is_turned_away() {
    let StandIn { leases, .. } = StandIn::new();
    let limits = Arc::new(Limits::new(DEFAULT, leases));
    let refused = refusal(limits.take(&user(0), &chute()).await);
    assert!(matches!(refused, Refusal::NotReady(_)), "{refused:?}");
}

#[tokio::test]
async fn more_is_asked_for_once_before_what_is_ready_is_used_up() {
    let mut stand_in = StandIn::new();
    let limits = Arc::new(Limits::new(Caps { per_minute: 90, at_once: 90 }, Arc::clone(&stand_in.leases)));
    let (user, chute) = (user(0), chute());
    let mut permits = Vec::new();
    let mut nudges = Vec::new();
    for _ in 0..60 {
        permits.push(stand_in.serve(&*limits, limits.take(&user, &chute)).await.unwrap());
        let asked = stand_in.answer(&*limits);
        let both = [Subject::Rate(user.id, None), Subject::AtOnce(user.id, None)];
        assert!(asked.len() <= 2 && asked.iter().all(|subject| both.contains(subject)), "{asked:?}");
        nudges.extend(asked);
    }
    let count = |way| stand_in.metrics.limits.decisions.with_label_values(&["caller", way]).get();
    assert_eq!((count("asked"), count("local")), (1, 59));
    assert!((4..60).contains(&nudges.len()), "{} questions ahead of need", nudges.len());
}

#[tokio::test]
async fn a_nudge_that_finds_no_room_is_tried_again() {
    let mut stand_in = StandIn::new();
    let (limits, user, chute) = (shared(&stand_in), user(0), chute());
    drop(stand_in.serve(&*limits, limits.take(&user, &chute)).await.unwrap());
    stand_in.answer(&*limits);
    while stand_in.leases.nudge(Subject::Instance(protocol::ids::InstanceId::random())) {}
    drop(limits.take(&user, &chute).await.unwrap());
    stand_in.answer(&*limits);
    let mut survey = Survey::default();
    limits.survey(false, stand_in.leases.moment(), &mut survey);
    assert_eq!(survey.due, [Subject::Rate(user.id, None)], "it is due still");
}

#[tokio::test]
async fn what_is_used_and_ready_is_surveyed_and_given_up_at_the_end() {
    let mut stand_in = StandIn::new();
    let (limits, user) = (shared(&stand_in), user(0));
    let chute = Chute { max_concurrent: Some(2), ..chute() };
    let permit = stand_in.serve(&*limits, limits.take(&user, &chute)).await.unwrap();
    stand_in.answer(&*limits);
    let survey = |all| {
        let mut survey = Survey::default();
        limits.survey(all, stand_in.leases.moment(), &mut survey);
        survey
    };
    let found = survey(true);
    assert_eq!(found.used, 4, "a call is counted per minute and at once, of the user and on the chute");
    assert_eq!(found.ready, 4);
    let of = |chute| [Subject::Rate(user.id, chute), Subject::AtOnce(user.id, chute)];
    assert_eq!(found.due, [of(None), of(Some(chute.id))].concat());
    assert!(survey(false).due.is_empty());
    limits.lapse();
    assert_eq!(survey(true).ready, 0);
    drop(permit);
    assert_eq!((survey(true).used, survey(true).ready), (2, 2), "what was in use is kept for the next call");
    limits.close();
    let found = survey(true);
    assert_eq!((found.ready, found.due.len()), (0, 4), "and given back when the gateway stops");
}

#[test]
fn a_chute_whose_minute_is_over_is_forgotten_while_its_caller_is_busy() {
    let limits = limits(DEFAULT);
    let (user, strict) = (user(0), Chute { rate_per_minute: Some(1), ..chute() });
    drop(take(&limits, &user, &strict, 0).unwrap());
    let _permit = take(&limits, &user, &chute(), 30).unwrap();
    let chutes = || limits.users.get(&user.id).unwrap().chutes.len();
    limits.sweep(at(60));
    assert_eq!(chutes(), 1);
    limits.sweep(at(61));
    assert_eq!(chutes(), 0);
}

#[test]
fn a_caller_is_told_of_the_limit_with_less_left() {
    let limits = limits(Caps { per_minute: 9, at_once: 9 });
    for (chutes_own, told) in [(2, 2), (40, 9)] {
        let user = user(0);
        let chute = Chute { rate_per_minute: Some(chutes_own), ..chute() };
        let standing = take(&limits, &user, &chute, 0).unwrap().standing().unwrap();
        assert_eq!((standing.limit, standing.remaining), (told, told - 1));
    }
}
