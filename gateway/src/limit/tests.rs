//! Tests of `limit`.

use chrono::TimeDelta;
use protocol::ids::ImageId;
use protocol::slug::Slug;

use super::*;

const DEFAULT: Allowance = Allowance { per_minute: 3, at_once: 2 };

fn user(permissions: u64) -> UserEntry {
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

fn chute() -> Chute {
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

fn start() -> DateTime<Utc> {
    DateTime::UNIX_EPOCH
}

fn refusal(taken: Result<Permit, Refusal>) -> Refusal {
    taken.err().expect("the call is refused")
}

#[test]
fn a_user_is_limited_over_all_chutes_together() {
    let limits = Limits::new(DEFAULT);
    let user = user(0);
    for _ in 0..3 {
        drop(limits.take(&user, &chute(), start()).unwrap());
    }
    let standing = Standing { limit: 3, remaining: 0, reset: 61 };
    let refused = refusal(limits.take(&user, &chute(), start()));
    assert_eq!(refused, Refusal::RateLimited { whose: Whose::User, standing });
    assert!(limits.take(&user, &chute(), start() + TimeDelta::seconds(61)).is_ok());
}

#[test]
fn a_chute_can_be_stricter_than_the_user() {
    let limits = Limits::new(DEFAULT);
    let (user, other) = (user(0), chute());
    let strict = Chute { rate_per_minute: Some(1), ..chute() };
    let permit = limits.take(&user, &strict, start()).unwrap();
    assert_eq!(permit.standing(), Some(Standing { limit: 1, remaining: 0, reset: 61 }));
    let standing = Standing { limit: 1, remaining: 0, reset: 61 };
    let refused = refusal(limits.take(&user, &strict, start()));
    assert_eq!(refused, Refusal::RateLimited { whose: Whose::Chute, standing });
    assert!(limits.take(&user, &other, start()).is_ok());
}

#[test]
fn calls_at_once_are_limited_and_free_again_when_they_end() {
    let limits = Limits::new(DEFAULT);
    let (user, chute) = (user(0), Chute { max_concurrent: Some(1), ..chute() });
    let first = limits.take(&user, &chute, start()).unwrap();
    let refused = refusal(limits.take(&user, &chute, start()));
    assert!(matches!(refused, Refusal::TooManyAtOnce { whose: Whose::Chute, standing } if standing.limit == 1));
    drop(first);
    assert!(limits.take(&user, &chute, start()).is_ok());
}

#[test]
fn a_refused_call_takes_nothing() {
    let limits = Limits::new(DEFAULT);
    let (user, strict) = (user(0), Chute { max_concurrent: Some(0), ..chute() });
    for _ in 0..10 {
        refusal(limits.take(&user, &strict, start()));
    }
    let permit = limits.take(&user, &chute(), start()).unwrap();
    assert_eq!(permit.standing().map(|standing| standing.remaining), Some(2));
    assert!(limits.take(&user, &chute(), start()).is_ok());
}

#[test]
fn an_override_of_the_user_holds_on_every_chute_without_its_own() {
    let limits = Limits::new(DEFAULT);
    let user = UserEntry { rate_per_minute: Some(10), max_concurrent: Some(10), ..user(0) };
    let chute = chute();
    let permits: Vec<Permit> = (0..10).map(|_| limits.take(&user, &chute, start()).unwrap()).collect();
    assert!(matches!(refusal(limits.take(&user, &chute, start())), Refusal::RateLimited { whose: Whose::User, .. }));
    drop(permits);
}

#[test]
fn an_unlimited_user_is_not_counted() {
    let limits = Limits::new(DEFAULT);
    let (user, chute) = (user(permission::UNLIMITED), chute());
    let permits: Vec<Permit> = (0..100).map(|_| limits.take(&user, &chute, start()).unwrap()).collect();
    assert!(permits.iter().all(|permit| permit.standing().is_none()));
    assert!(limits.users.is_empty());
}

#[test]
fn idle_users_are_forgotten_and_busy_ones_are_not() {
    let limits = Limits::new(DEFAULT);
    let (busy, idle, chute) = (user(0), user(0), chute());
    let permit = limits.take(&busy, &chute, start()).unwrap();
    drop(limits.take(&idle, &chute, start()).unwrap());
    limits.sweep(start() + TimeDelta::seconds(60));
    assert_eq!(limits.users.len(), 2);
    limits.sweep(start() + TimeDelta::seconds(61));
    assert_eq!(limits.users.len(), 1);
    drop(permit);
    limits.sweep(start() + TimeDelta::seconds(61));
    assert!(limits.users.is_empty());
}

#[test]
fn many_threads_never_exceed_what_is_allowed_at_once() {
    let limits = Limits::new(Allowance { per_minute: u32::MAX, at_once: 5 });
    let (user, chute) = (user(0), chute());
    let in_flight = std::sync::atomic::AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..2_000 {
                    if let Ok(permit) = limits.take(&user, &chute, start()) {
                        let now = in_flight.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1;
                        assert!(now <= 5, "{now} at once");
                        in_flight.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                        drop(permit);
                    }
                }
            });
        }
    });
    let permits: Vec<Permit> = (0..5).map(|_| limits.take(&user, &chute, start()).unwrap()).collect();
    assert!(limits.take(&user, &chute, start()).is_err());
    drop(permits);
}
