//! Tests of `quota`.

use proptest::prelude::*;
use protocol::lease::claims::Claims;

use super::*;
use crate::lease::stand_in::StandIn;
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
        let metrics = Arc::new(Metrics::new().unwrap());
        let (leases, _) = Leases::new(Duration::from_secs(1), Arc::clone(&metrics));
        let quota = Quota::new(Principals::alone(metrics), leases, WriterId::random());
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
                    return Some(QuotaHold { accounts, leases, key, is_slot: true, delivered: None });
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
    let ready = table.quota.accounts.get(&key).unwrap().allowance.holding().free();
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
    assert_eq!(table.quota.accounts.iter().next().unwrap().allowance.used(), 0);
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
    sweep(&accounts, noon() + TimeDelta::hours(11));
    assert_eq!(accounts.len(), 1, "control has not counted it");
    accounts.iter_mut().for_each(|mut account| account.allowance = Allowance::default());
    sweep(&accounts, noon() + TimeDelta::hours(11));
    assert_eq!(accounts.len(), 0);
}

/// The allowances of a gateway with a Redis.
fn shared(stand_in: &StandIn) -> Quota {
    Quota::new(Principals::alone(Arc::clone(&stand_in.metrics)), Arc::clone(&stand_in.leases), WriterId::random())
}

/// One call at noon.
async fn hold(
    stand_in: &mut StandIn,
    quota: &Quota,
    user: &UserEntry,
    chute: ChuteId,
    funds: Option<&FundsEntry>,
) -> Result<QuotaHold, Refusal> {
    let leases = Arc::clone(&stand_in.leases);
    let mut patience = leases.patience();
    stand_in.serve(quota, quota.hold(user, chute, funds, noon(), &mut patience)).await
}

fn balance(balance: i128) -> FundsEntry {
    funds(balance, noon().date_naive(), &[], &[])
}

#[tokio::test]
async fn an_allowance_is_used_first_and_then_a_balance_and_without_one_the_call_is_refused() {
    let mut stand_in = StandIn::new();
    let (quota, chute) = (shared(&stand_in), ChuteId::random());
    for (pico, pays) in [(1, true), (0, false), (-1, false)] {
        let (user, funds) = (user(&[(Bucket::Default, 1)]), balance(pico));
        let free = hold(&mut stand_in, &quota, &user, chute, Some(&funds)).await.unwrap();
        assert!(free.is_slot);
        let second = hold(&mut stand_in, &quota, &user, chute, Some(&funds)).await;
        assert_eq!(second.as_ref().is_ok_and(|hold| !hold.is_slot), pays, "{pico} pico-dollars");
        if let Err(refused) = second {
            let resets_at = next_midnight(noon());
            assert_eq!(refused, Refusal::QuotaExceeded { quota: 1, whose: Whose::User, resets_at, now: noon() });
        }
    }
    let stranger = user(&[(Bucket::Default, 0)]);
    assert!(hold(&mut stand_in, &quota, &stranger, chute, None).await.is_err(), "no entry is no balance");
}

#[tokio::test]
async fn a_refusal_says_whether_it_is_the_chutes_own_allowance() {
    let mut stand_in = StandIn::new();
    let (quota, chute) = (shared(&stand_in), ChuteId::random());
    let user = user(&[(Bucket::Default, 5), (Bucket::Chute(chute), 0)]);
    let refused = hold(&mut stand_in, &quota, &user, chute, None).await.err().unwrap();
    assert!(matches!(refused, Refusal::QuotaExceeded { quota: 0, whose: Whose::Chute, .. }), "{refused:?}");
}

#[tokio::test]
async fn what_other_gateways_let_in_is_not_free_here() {
    let mut stand_in = StandIn::new();
    let (quota, user, chute) = (shared(&stand_in), user(&[(Bucket::Default, 3)]), ChuteId::random());
    stand_in.held_elsewhere(&Subject::Quota(user.id, Bucket::Default, noon().date_naive()), 2);
    let _held = hold(&mut stand_in, &quota, &user, chute, None).await.unwrap();
    assert!(hold(&mut stand_in, &quota, &user, chute, None).await.is_err());
}

#[tokio::test]
async fn a_balance_pays_for_nothing_while_redis_has_not_settled() {
    let mut stand_in = StandIn::new();
    let (quota, user, chute) = (shared(&stand_in), user(&[(Bucket::Default, 0)]), ChuteId::random());
    let rich = balance(1_000_000);
    let leases = Arc::clone(&stand_in.leases);
    let mut patience = leases.patience();
    stand_in.settle(false);
    let call = quota.hold(&user, chute, Some(&rich), noon(), &mut patience);
    // The call runs first, and waits.
    let (held, ()) = tokio::join!(biased; call, async {
        assert_eq!(quota.accounts.iter().map(|account| account.allowance.in_flight()).sum::<u64>(), 0, "nothing is paid for yet");
        stand_in.settle(true);
    });
    assert!(held.is_ok());
    assert!(hold(&mut stand_in, &quota, &user, chute, Some(&rich)).await.is_ok());
}

#[tokio::test]
async fn a_call_whose_question_nobody_takes_is_turned_away() {
    let StandIn { leases, metrics, .. } = StandIn::new();
    let quota = Quota::new(Principals::alone(metrics), Arc::clone(&leases), WriterId::random());
    let user = user(&[(Bucket::Default, 5)]);
    let refused = quota.hold(&user, ChuteId::random(), None, noon(), &mut leases.patience()).await.err().unwrap();
    assert!(matches!(refused, Refusal::NotReady(_)), "{refused:?}");
}

#[tokio::test]
async fn only_accounts_that_pay_otherwise_have_no_allowance() {
    let stand_in = StandIn::new();
    let quota = shared(&stand_in);
    for (permissions, exempt) in [
        (permission::FREE_ACCOUNT, true),
        (permission::INVOICE_BILLING, true),
        (permission::UNLIMITED, false),
        (!EXEMPT, false),
        (0, false),
    ] {
        let user = UserEntry { permissions, ..user(&[(Bucket::Default, 5)]) };
        let checked = quota.check(&user, ChuteId::random(), noon()).await;
        // Everybody else is looked up, which fails here.
        assert_eq!(checked.is_ok_and(|hold| hold.is_none()), exempt, "{permissions:b}");
    }
}

#[tokio::test]
async fn a_call_is_checked_against_the_funds_that_are_known() {
    let mut stand_in = StandIn::new();
    let quota = shared(&stand_in);
    let (poor, rich) = (user(&[(Bucket::Default, 0)]), user(&[(Bucket::Default, 0)]));
    for (user, balance) in [(&poor, 0), (&rich, 1)] {
        quota.principals.learn(&protocol::keys::Key::funds(user.id), Some(self::balance(balance)));
    }
    let refused = stand_in.serve(&quota, quota.check(&poor, ChuteId::random(), noon())).await;
    assert!(matches!(refused.err(), Some(Refusal::QuotaExceeded { .. })));
    let held = stand_in.serve(&quota, quota.check(&rich, ChuteId::random(), noon())).await.unwrap();
    assert!(held.is_some());
    let count = |way| stand_in.metrics.limits.decisions.with_label_values(&["quota", way]).get();
    assert_eq!(count("asked") + count("local"), 2);
}

#[test]
fn what_control_counted_on_another_day_says_nothing_and_marks_of_other_writers_neither() {
    let (writer, day) = (WriterId::random(), noon().date_naive());
    let key = AccountKey { user: UserId::random(), bucket: Bucket::Default, day };
    let recounted = |funds: Option<FundsEntry>| {
        let mut account = Account::new(noon());
        account.allowance.grant(100);
        (0..13).for_each(|_| account.allowance.pay());
        (7..=9).for_each(|sequence| account.allowance.deliver(sequence));
        account.recount(key, writer, funds.as_ref());
        (100 - account.allowance.terms().limit, account.allowance.used())
    };
    let used = [(Bucket::Default, 2)];
    assert_eq!(recounted(None), (0, 13));
    assert_eq!(recounted(Some(funds(0, day, &used, &[(writer, 8)]))), (2, 11));
    assert_eq!(recounted(Some(funds(0, day, &used, &[(writer, u64::MAX)]))), (2, 13), "no log has so many");
    assert_eq!(recounted(Some(funds(0, day, &used, &[(WriterId::random(), 8)]))), (2, 13));
    assert_eq!(recounted(Some(funds(0, day + Days::new(1), &used, &[(writer, 8)]))), (0, 13));
}

#[tokio::test]
async fn a_place_comes_back_when_its_call_fails_and_is_used_up_when_it_was_delivered() {
    let mut stand_in = StandIn::new();
    let (quota, user, chute) = (shared(&stand_in), user(&[(Bucket::Default, 1)]), ChuteId::random());
    for _ in 0..5 {
        drop(hold(&mut stand_in, &quota, &user, chute, None).await.unwrap());
    }
    let delivered = hold(&mut stand_in, &quota, &user, chute, None).await.unwrap();
    assert_eq!(delivered.bucket(), Bucket::Default);
    delivered.counted(7);
    assert!(hold(&mut stand_in, &quota, &user, chute, None).await.is_err());
}

#[tokio::test]
async fn a_call_that_was_paid_for_gives_no_place_back() {
    let mut stand_in = StandIn::new();
    let (quota, user, chute) = (shared(&stand_in), user(&[(Bucket::Default, 0)]), ChuteId::random());
    let rich = balance(9);
    for _ in 0..3 {
        drop(hold(&mut stand_in, &quota, &user, chute, Some(&rich)).await.unwrap());
    }
    let account = quota.accounts.iter().next().unwrap();
    assert_eq!((account.allowance.in_flight(), account.allowance.holding().free()), (0, 0));
}

#[tokio::test]
async fn what_is_used_and_ready_is_surveyed_and_given_up_at_the_end() {
    let mut stand_in = StandIn::new();
    let (quota, user, chute) = (shared(&stand_in), user(&[(Bucket::Default, 50)]), ChuteId::random());
    let subject = Subject::Quota(user.id, Bucket::Default, noon().date_naive());
    let first = hold(&mut stand_in, &quota, &user, chute, None).await.unwrap();
    let second = hold(&mut stand_in, &quota, &user, chute, None).await.unwrap();
    stand_in.answer(&quota);
    let survey = |all| {
        let mut survey = Survey::default();
        quota.survey(all, stand_in.leases.moment(), &mut survey);
        survey
    };
    let found = survey(true);
    assert_eq!((found.due, found.used, found.ready), (vec![subject], 2, 48));
    assert!(survey(false).due.is_empty());
    drop((first, second));
    assert_eq!((survey(true).used, survey(true).ready), (0, 50));
    quota.lapse();
    assert_eq!(survey(true).ready, 0);
    quota.accounts.iter_mut().for_each(|mut account| account.allowance.give_up(true, Redis::There));
    quota.close();
    let found = survey(true);
    assert_eq!((found.due, found.ready), (vec![subject], 0), "redis does not know it yet");
}

#[tokio::test]
async fn a_question_is_due_again_if_it_found_no_room_or_no_answer() {
    let mut stand_in = StandIn::new();
    let (quota, user, chute) = (shared(&stand_in), user(&[(Bucket::Default, 50)]), ChuteId::random());
    let subject = Subject::Quota(user.id, Bucket::Default, noon().date_naive());
    let held = hold(&mut stand_in, &quota, &user, chute, None).await.unwrap();
    stand_in.answer(&quota);
    quota.lapse();
    while stand_in.leases.nudge(Subject::Instance(protocol::ids::InstanceId::random())) {}
    drop(held);
    stand_in.answer(&quota);
    let due = || {
        let mut survey = Survey::default();
        quota.survey(false, stand_in.leases.moment(), &mut survey);
        survey.due
    };
    assert_eq!(due(), [subject]);
    assert!(due().is_empty(), "it is on its way");
    let asked = quota.ask(&subject, 0, stand_in.leases.moment()).unwrap();
    quota.answer(&subject, &asked, None, stand_in.leases.moment());
    assert_eq!(due(), [subject]);
    for other in [Subject::Rate(user.id, None), Subject::AtOnce(user.id, None)] {
        assert!(quota.ask(&other, 0, stand_in.leases.moment()).is_none());
    }
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
