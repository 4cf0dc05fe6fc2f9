//! Tests of `quota`.

use clap::Parser;
use proptest::prelude::*;
use protocol::lease::claims::Claims;

use super::*;
use crate::config::Config;
use crate::metrics::Metrics;

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

/// A gateway's allowances over a model of Redis that is there.
struct Table {
    quota: Quota,
    claims: Claims<String>,
    sequence: u64,
}

impl Table {
    fn new() -> Self {
        // Another test of this process may have installed it before.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let zeros = "00".repeat(32);
        let config = Config::parse_from([
            "gateway",
            "--domain=chutes.localhost",
            "--certificates=/none",
            "--log-folder=/none",
            "--redis-url=redis://127.0.0.1:9/?protocol=resp3",
            "--api-upstream=127.0.0.1:9",
            "--control-url=http://127.0.0.1:9",
            "--internal-credential=internal",
            "--directory-key",
            &zeros,
            "--call-key-seed",
            &zeros,
            "--session-public-key",
            &zeros,
        ]);
        let metrics = Arc::new(Metrics::new().unwrap());
        let (leases, _) = Leases::new(Duration::from_secs(1), Arc::clone(&metrics));
        let quota = Quota::new(Principals::new(&config, metrics).unwrap(), leases, WriterId::random());
        let mut claims = Claims::default();
        claims.beat(quota.writer, 0);
        Self { quota, claims, sequence: 0 }
    }

    fn writer(&self) -> WriterId {
        self.quota.writer
    }

    /// A place, with as many questions as it takes; none when the allowance is used up.
    fn hold(
        &mut self,
        user: &UserEntry,
        chute: ChuteId,
        funds: Option<&FundsEntry>,
        now: DateTime<Utc>,
    ) -> Option<QuotaHold> {
        let (bucket, quota) = allowance(user, chute);
        let key = AccountKey { user: user.id, bucket, day: now.date_naive() };
        let moment = Moment { time: Duration::from_secs(9), redis: Redis::There, gateways: 1 };
        loop {
            match self.quota.try_hold(key, quota, funds, now, moment) {
                Verdict::Fits => {
                    let (accounts, leases) = (Arc::clone(&self.quota.accounts), Arc::clone(&self.quota.leases));
                    return Some(QuotaHold { accounts, leases, key, is_slot: true });
                }
                Verdict::Full => return None,
                Verdict::Ask => {
                    self.sequence += 1;
                    let ask = self.quota.ask(&key.subject(), 1, moment).unwrap();
                    let (text, writer) = (key.subject().key().to_string(), self.quota.writer);
                    let (settled, answer) = self.claims.ask(text, writer, self.sequence, 1, &ask, 2_000);
                    assert!(settled);
                    self.quota.answer(&key.subject(), &ask, Some(&answer), moment);
                }
                Verdict::Unknown => panic!("redis is there"),
            }
        }
    }
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
fn used_up_is_used_up_until_midnight() {
    let mut table = Table::new();
    let (user, chute) = (user(&[(Bucket::Default, 5)]), ChuteId::random());
    let today = funds(0, noon().date_naive(), &[(Bucket::Default, 5)], &[]);
    assert!(table.hold(&user, chute, Some(&today), noon()).is_none());
    assert!(table.hold(&user, chute, Some(&today), noon() + Days::new(1)).is_some());
    let midnight = next_midnight(noon());
    assert_eq!((midnight.date_naive(), midnight.time()), (noon().date_naive() + Days::new(1), NaiveTime::MIN));
}

#[test]
fn without_redis_nothing_is_let_in_but_what_was_ready() {
    let mut table = Table::new();
    let (user, chute) = (user(&[(Bucket::Default, 100)]), ChuteId::random());
    let held = table.hold(&user, chute, None, noon()).unwrap();
    let key = held.key;
    let ready = table.quota.accounts.get(&key).unwrap().holding.free();
    assert!(ready > 0);
    let away = Moment { time: Duration::from_secs(11), redis: Redis::Away, gateways: 1 };
    for _ in 0..ready {
        assert_eq!(table.quota.try_hold(key, 100, None, noon(), away), Verdict::Fits);
    }
    assert_eq!(table.quota.try_hold(key, 100, None, noon(), away), Verdict::Unknown);
}

#[test]
fn delivered_calls_count_until_control_has_counted_them() {
    let mut table = Table::new();
    let (user, chute, writer) = (user(&[(Bucket::Default, 2)]), ChuteId::random(), table.writer());
    let day = noon().date_naive();
    table.hold(&user, chute, None, noon()).unwrap().counted(7);
    table.hold(&user, chute, None, noon()).unwrap().counted(8);
    assert!(table.hold(&user, chute, None, noon()).is_none());
    let first = funds(0, day, &[(Bucket::Default, 1)], &[(writer, 7)]);
    assert!(table.hold(&user, chute, Some(&first), noon()).is_none());
    let both = funds(0, day, &[(Bucket::Default, 2)], &[(writer, 8)]);
    assert!(table.hold(&user, chute, Some(&both), noon()).is_none());
}

#[test]
fn a_call_in_flight_holds_a_place_and_gives_it_back_when_it_fails() {
    let mut table = Table::new();
    let (user, chute) = (user(&[(Bucket::Default, 1)]), ChuteId::random());
    let held = table.hold(&user, chute, None, noon());
    assert!(held.is_some());
    assert!(table.hold(&user, chute, None, noon()).is_none());
    drop(held);
    // The slot came back while the link of this test says that redis is away: then it is not used a second time.
    assert_eq!(table.quota.accounts.iter().next().unwrap().used(), 0);
}

#[test]
fn what_is_over_is_forgotten() {
    let mut table = Table::new();
    let user = user(&[(Bucket::Default, 9)]);
    table.hold(&user, ChuteId::random(), None, noon()).unwrap().counted(1);
    let in_flight = table.hold(&user, ChuteId::random(), None, noon() - Days::new(1)).unwrap();
    let accounts = Arc::clone(&table.quota.accounts);
    sweep(&accounts, noon());
    assert_eq!(accounts.len(), 2);
    drop(in_flight);
    sweep(&accounts, noon() + TimeDelta::minutes(59));
    assert_eq!(accounts.len(), 1);
    accounts.iter_mut().for_each(|mut account| account.holding = Holding::default());
    sweep(&accounts, noon() + TimeDelta::minutes(61));
    assert_eq!(accounts.len(), 0);
}

proptest! {
    /// Any order of calls, failures and confirmations lets at most the allowance through.
    #[test]
    fn an_allowance_is_not_exceeded(
        quota in 0_u64..12,
        steps in prop::collection::vec(0_u8..4, 0..120),
    ) {
        let mut table = Table::new();
        let (user, chute, writer) = (user(&[(Bucket::Default, quota)]), ChuteId::random(), table.writer());
        let (mut in_flight, mut delivered, mut confirmed, mut failed) = (Vec::new(), 0, 0, 0);
        for step in steps {
            let known = funds(0, noon().date_naive(), &[(Bucket::Default, confirmed)], &[(writer, confirmed)]);
            match step {
                0 => {
                    let held = table.hold(&user, chute, Some(&known), noon());
                    let left = quota.saturating_sub(delivered + in_flight.len() as u64);
                    prop_assert!(left > 0 || held.is_none());
                    // Failed calls' slots are not ready here again, and none is refused for another reason.
                    prop_assert!(held.is_some() || left <= failed);
                    in_flight.extend(held);
                }
                1 => if let Some(hold) = in_flight.pop() {
                    delivered += 1;
                    hold.counted(delivered);
                },
                2 => failed += u64::from(in_flight.pop().is_some()),
                _ => confirmed = delivered,
            }
        }
    }
}
