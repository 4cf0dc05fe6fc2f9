//! Tests of `quota`.

use proptest::prelude::*;

use super::*;

fn user(quotas: &[(Bucket, u64)]) -> UserEntry {
    UserEntry {
        id: UserId::random(),
        username: "caller".into(),
        generation: 0,
        permissions: 0,
        rate_per_minute: None,
        max_concurrent: None,
        quotas: quotas.iter().copied().collect(),
        deleted: false,
    }
}

fn funds(balance: i128, day: NaiveDate, used: &[(Bucket, u64)], marks: &[(WriterId, u64)]) -> FundsEntry {
    FundsEntry { balance, day, used: used.iter().copied().collect(), marks: marks.iter().copied().collect() }
}

fn noon() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_014_400, 0).unwrap()
}

#[test]
fn a_chute_with_an_allowance_of_its_own_does_not_use_the_common_one() {
    let (own, other) = (ChuteId::random(), ChuteId::random());
    let user = user(&[(Bucket::Default, 5), (Bucket::Chute(own), 2)]);
    assert_eq!(allowance(&user, own), (Bucket::Chute(own), 2));
    assert_eq!(allowance(&user, other), (Bucket::Default, 5));
}

#[test]
fn used_up_without_balance_is_refused_until_midnight() {
    let (accounts, writer, chute) = (Arc::default(), WriterId::random(), ChuteId::random());
    let user = user(&[(Bucket::Default, 5)]);
    let today = funds(0, noon().date_naive(), &[(Bucket::Default, 5)], &[]);
    let refused = hold(&accounts, writer, &user, chute, Some(&today), noon()).err().unwrap();
    let Refusal::QuotaExceeded { quota, whose, resets_at, now } = refused else { panic!("{refused:?}") };
    assert_eq!((quota, whose, now), (5, Whose::User, noon()));
    assert_eq!(resets_at.date_naive(), noon().date_naive() + Days::new(1));
    assert_eq!(resets_at.time(), NaiveTime::MIN);
    assert!(hold(&accounts, writer, &user, chute, Some(&today), noon() + Days::new(1)).is_ok());
}

#[test]
fn a_balance_pays_for_calls_beyond_the_allowance() {
    let (accounts, writer, chute) = (Arc::default(), WriterId::random(), ChuteId::random());
    let user = user(&[(Bucket::Default, 0)]);
    let day = noon().date_naive();
    assert!(hold(&accounts, writer, &user, chute, Some(&funds(1, day, &[], &[])), noon()).is_ok());
    assert!(hold(&accounts, writer, &user, chute, Some(&funds(-1, day, &[], &[])), noon()).is_err());
    assert!(hold(&accounts, writer, &user, chute, None, noon()).is_err());
}

#[test]
fn delivered_calls_count_until_control_has_counted_them() {
    let (accounts, writer, chute) = (Arc::default(), WriterId::random(), ChuteId::random());
    let user = user(&[(Bucket::Default, 2)]);
    let day = noon().date_naive();
    hold(&accounts, writer, &user, chute, None, noon()).unwrap().counted(7);
    hold(&accounts, writer, &user, chute, None, noon()).unwrap().counted(8);
    assert!(hold(&accounts, writer, &user, chute, None, noon()).is_err());
    let first = funds(0, day, &[(Bucket::Default, 1)], &[(writer, 7)]);
    assert!(hold(&accounts, writer, &user, chute, Some(&first), noon()).is_err());
    let both_but_one_was_another_day = funds(0, day, &[(Bucket::Default, 1)], &[(writer, 8)]);
    assert!(hold(&accounts, writer, &user, chute, Some(&both_but_one_was_another_day), noon()).is_ok());
}

#[test]
fn a_call_in_flight_holds_a_place_and_gives_it_back_when_it_fails() {
    let (accounts, writer, chute) = (Arc::default(), WriterId::random(), ChuteId::random());
    let user = user(&[(Bucket::Default, 1)]);
    let held = hold(&accounts, writer, &user, chute, None, noon()).unwrap();
    assert!(hold(&accounts, writer, &user, chute, None, noon()).is_err());
    drop(held);
    assert!(hold(&accounts, writer, &user, chute, None, noon()).is_ok());
}

#[test]
fn what_is_over_is_forgotten() {
    let (accounts, writer, chute): (Arc<Accounts>, _, _) = (Arc::default(), WriterId::random(), ChuteId::random());
    let user = user(&[(Bucket::Default, 9)]);
    hold(&accounts, writer, &user, chute, None, noon()).unwrap().counted(1);
    let in_flight = hold(&accounts, writer, &user, ChuteId::random(), None, noon() - Days::new(1)).unwrap();
    sweep(&accounts, noon());
    assert_eq!(accounts.len(), 2);
    drop(in_flight);
    sweep(&accounts, noon() + TimeDelta::minutes(59));
    assert_eq!(accounts.len(), 1);
    sweep(&accounts, noon() + TimeDelta::minutes(61));
    assert_eq!(accounts.len(), 0);
}

proptest! {
    /// Any order of calls, failures and confirmations lets exactly the allowance through.
    #[test]
    fn an_allowance_is_neither_exceeded_nor_lost(
        quota in 0_u64..12,
        steps in prop::collection::vec(0_u8..4, 0..120),
    ) {
        let (accounts, writer, chute) = (Arc::default(), WriterId::random(), ChuteId::random());
        let user = user(&[(Bucket::Default, quota)]);
        let (mut in_flight, mut delivered, mut confirmed) = (Vec::new(), 0, 0);
        for step in steps {
            let known = funds(0, noon().date_naive(), &[(Bucket::Default, confirmed)], &[(writer, confirmed)]);
            match step {
                0 => {
                    let held = hold(&accounts, writer, &user, chute, Some(&known), noon());
                    prop_assert_eq!(held.is_ok(), delivered + (in_flight.len() as u64) < quota);
                    in_flight.extend(held.ok());
                }
                1 => if let Some(hold) = in_flight.pop() {
                    delivered += 1;
                    hold.counted(delivered);
                },
                2 => drop(in_flight.pop()),
                _ => confirmed = delivered,
            }
        }
    }
}
