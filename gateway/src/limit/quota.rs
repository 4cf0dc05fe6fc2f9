//! The daily allowance of calls that cost nothing.
//!
//! Used are: the calls control has counted (`FundsEntry::used`), this process's delivered calls that control has not
//! counted yet (above our mark in the same entry), and the calls in flight. A call in flight holds a place, which
//! becomes a used one when it is delivered and is given back when it is not. Places are slots that all gateways share:
//! what control has counted belongs to nobody, everything else is in some gateway's claim, so that all together never
//! let more than the allowance through without a balance. A place has no share: with Redis away only what is ready
//! serves, and a balance pays for nothing.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Days, NaiveDate, NaiveTime, TimeDelta, Utc};
use protocol::ids::{ChuteId, UserId, WriterId};
use protocol::lease::allowance::Allowance;
use protocol::lease::holding::{Now, Verdict};
use protocol::lease::{Answer, Ask, Redis};
use protocol::principal::{Bucket, FundsEntry, UserEntry, permission};

use crate::clock::Clock;
use crate::lease::{Book, Leases, Moment, Patience, Subject, Survey};
use crate::metrics::Limit;
use crate::principals::Principals;
use crate::refusal::{Refusal, Whose};
use crate::sync::Map;

/// Accounts that pay otherwise or not at all.
const EXEMPT: u64 = permission::FREE_ACCOUNT | permission::INVOICE_BILLING;
/// Pause between two sweeps of old accounts.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// Pause between two looks at what control has counted of accounts that are nearly used up.
const RECOUNT_EVERY: Duration = Duration::from_secs(1);
/// After this time without a call it is asked what control has counted of its calls, so that it can be forgotten.
const IDLE_AFTER: TimeDelta = TimeDelta::hours(1);

/// Daily allowances.
pub struct Quota {
    principals: Arc<Principals>,
    leases: Arc<Leases>,
    writer: WriterId,
    accounts: Arc<Accounts>,
}

type Accounts = Map<AccountKey, Account>;

/// One allowance of one user on one day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct AccountKey {
    user: UserId,
    bucket: Bucket,
    day: NaiveDate,
}

/// An allowance, and when it was last asked for.
struct Account {
    allowance: Allowance,
    touched: DateTime<Utc>,
}

/// A place in an allowance, held by a call in flight.
#[must_use = "dropping it gives the place back"]
pub struct QuotaHold {
    accounts: Arc<Accounts>,
    leases: Arc<Leases>,
    key: AccountKey,
    /// Whether it is a slot that another call may have if this one comes to nothing.
    is_slot: bool,
    /// The call's place in our record log, once it was delivered.
    delivered: Option<u64>,
}

impl Quota {
    /// Allowances of these principals; `writer` is this process's record log.
    #[must_use]
    pub fn new(principals: Arc<Principals>, leases: Arc<Leases>, writer: WriterId) -> Self {
        Self { principals, leases, writer, accounts: Arc::default() }
    }

    /// Takes a place in the allowance that a call counts against; none for accounts without one.
    ///
    /// # Errors
    /// [`Refusal::QuotaExceeded`] when none is left and there is no balance, [`Refusal::NotReady`] when that cannot be
    /// known.
    pub async fn check(
        &self,
        user: &UserEntry,
        chute: ChuteId,
        now: DateTime<Utc>,
    ) -> Result<Option<QuotaHold>, Refusal> {
        if user.permissions & EXEMPT != 0 {
            return Ok(None);
        }
        let funds = self.principals.funds(user.id).await?;
        let mut patience = self.leases.patience();
        let held = self.hold(user, chute, funds.as_deref(), now, &mut patience).await;
        self.leases.count(Limit::Quota, patience.has_asked());
        held.map(Some)
    }

    /// Takes a place, if one is left or there is a balance. Without a funds entry nothing was used and there is no
    /// balance.
    async fn hold(
        &self,
        user: &UserEntry,
        chute: ChuteId,
        funds: Option<&FundsEntry>,
        now: DateTime<Utc>,
        patience: &mut Patience<'_>,
    ) -> Result<QuotaHold, Refusal> {
        const UNKNOWN: Refusal = Refusal::NotReady("the allowance cannot be checked at the moment");
        let (bucket, quota) = allowance(user, chute);
        let key = AccountKey { user: user.id, bucket, day: now.date_naive() };
        let is_slot = loop {
            let moment = self.leases.moment();
            match self.try_hold(key, quota, funds, now, moment) {
                Verdict::Fits => break true,
                Verdict::Full => {
                    let pays = funds.is_some_and(|funds| funds.balance > 0);
                    if pays && moment.redis == Redis::There {
                        self.pay(key);
                        break false;
                    }
                    if !pays {
                        let whose = if bucket == Bucket::Default { Whose::User } else { Whose::Chute };
                        return Err(Refusal::QuotaExceeded { quota, whose, resets_at: next_midnight(now), now });
                    }
                    if !self.leases.settled().await {
                        return Err(Refusal::NotReady("the balance cannot be checked at the moment"));
                    }
                }
                Verdict::Ask => {
                    if !patience.ask(vec![key.subject()]).await {
                        return Err(UNKNOWN);
                    }
                }
                Verdict::Unknown => {
                    if !self.leases.settled().await {
                        return Err(UNKNOWN);
                    }
                }
            }
        };
        Ok(QuotaHold {
            accounts: Arc::clone(&self.accounts),
            leases: Arc::clone(&self.leases),
            key,
            is_slot,
            delivered: None,
        })
    }

    /// Takes a place that is ready here.
    fn try_hold(
        &self,
        key: AccountKey,
        quota: u64,
        funds: Option<&FundsEntry>,
        now: DateTime<Utc>,
        moment: Moment,
    ) -> Verdict {
        let mut account = self.accounts.entry(key).or_insert_with(|| Account::new(now));
        account.touched = now;
        account.allowance.grant(quota);
        account.recount(key, self.writer, funds);
        let now = account.at(moment);
        let verdict = account.allowance.take(now);
        if verdict != Verdict::Ask {
            account.nudge_if_due(key, &self.leases, moment);
        }
        verdict
    }

    /// Counts a call that is paid for, beyond the allowance.
    fn pay(&self, key: AccountKey) {
        if let Some(mut account) = self.accounts.get_mut(&key) {
            account.allowance.pay();
        }
    }

    /// Forgets what is over, for as long as it is polled.
    pub async fn sweep_always(self: Arc<Self>, clock: Clock) {
        loop {
            tokio::time::sleep(SWEEP_EVERY).await;
            let now = clock.now();
            self.recount(|account| account.is_ahead_and_idle(now)).await;
            sweep(&self.accounts, now);
        }
    }

    /// Learns what control has counted of accounts that are nearly used up, so that no call counts twice for long.
    pub async fn recount_always(self: Arc<Self>) {
        loop {
            tokio::time::sleep(RECOUNT_EVERY).await;
            self.recount(|account| account.allowance.is_ahead() && account.allowance.is_scarce()).await;
        }
    }

    /// Learns what control has counted of the accounts that are wanted.
    async fn recount(&self, wanted: impl Fn(&Account) -> bool) {
        let wanted = self.accounts.iter().filter(|account| wanted(account)).map(|account| *account.key());
        let keys: Vec<AccountKey> = wanted.collect();
        for key in keys {
            // What cannot be read now is read later.
            let Ok(funds) = self.principals.funds(key.user).await else { return };
            if let Some(mut account) = self.accounts.get_mut(&key) {
                account.recount(key, self.writer, funds.as_deref());
            }
        }
    }
}

impl Book for Quota {
    fn ask(&self, subject: &Subject, waiting: u64, moment: Moment) -> Option<Ask> {
        let mut account = self.accounts.get_mut(&AccountKey::of(subject)?)?;
        let now = account.at(moment);
        Some(account.allowance.ask(waiting, now))
    }

    fn answer(&self, subject: &Subject, asked: &Ask, answer: Option<&Answer>, moment: Moment) {
        let account = AccountKey::of(subject).and_then(|key| self.accounts.get_mut(&key));
        let Some(mut account) = account else { return };
        let now = account.at(moment);
        match answer {
            Some(answer) => account.allowance.answer(asked, answer, now),
            None => account.allowance.unanswered(),
        }
    }

    fn survey(&self, all: bool, moment: Moment, survey: &mut Survey) {
        for mut account in self.accounts.iter_mut() {
            let now = account.at(moment);
            survey.ready += account.allowance.holding().free();
            survey.used += account.allowance.used();
            if account.allowance.is_due(now) || (all && !account.allowance.is_idle()) {
                survey.due.push(account.key().subject());
            }
        }
    }

    fn lapse(&self) {
        self.accounts.iter_mut().for_each(|mut account| account.allowance.lapse());
    }

    fn close(&self) {
        self.accounts.iter_mut().for_each(|mut account| account.allowance.close());
    }
}

impl AccountKey {
    fn subject(&self) -> Subject {
        Subject::Quota(self.user, self.bucket, self.day)
    }

    fn of(subject: &Subject) -> Option<Self> {
        match *subject {
            Subject::Quota(user, bucket, day) => Some(Self { user, bucket, day }),
            Subject::Rate(..) | Subject::AtOnce(..) | Subject::Instance(_) => None,
        }
    }
}

impl QuotaHold {
    /// The allowance, for the record of the call.
    #[must_use]
    pub fn bucket(&self) -> Bucket {
        self.key.bucket
    }

    /// The day of the allowance.
    #[must_use]
    pub fn day(&self) -> NaiveDate {
        self.key.day
    }

    /// Turns the place into a used one: the call was delivered, and this is its place in our record log.
    pub fn counted(mut self, sequence: u64) {
        self.delivered = Some(sequence);
    }
}

impl Drop for QuotaHold {
    fn drop(&mut self) {
        if let Some(mut account) = self.accounts.get_mut(&self.key) {
            let moment = self.leases.moment();
            match self.delivered {
                Some(sequence) => account.allowance.deliver(sequence),
                None => account.allowance.give_up(self.is_slot, moment.redis),
            }
            account.nudge_if_due(self.key, &self.leases, moment);
        }
    }
}

impl Account {
    fn new(now: DateTime<Utc>) -> Self {
        Self { allowance: Allowance::default(), touched: now }
    }

    /// Takes over what control has counted: those of our calls are its from then on.
    fn recount(&mut self, key: AccountKey, writer: WriterId, funds: Option<&FundsEntry>) {
        // An entry of another day says nothing about this one.
        let Some(funds) = funds.filter(|funds| funds.day == key.day) else { return };
        let used = funds.used.get(&key.bucket).copied().unwrap_or(0);
        self.allowance.recount(used, funds.marks.get(&writer).copied());
    }

    fn at(&self, moment: Moment) -> Now {
        moment.with(self.allowance.terms())
    }

    fn is_ahead_and_idle(&self, now: DateTime<Utc>) -> bool {
        now - self.touched > IDLE_AFTER && self.allowance.is_ahead()
    }

    fn nudge_if_due(&mut self, key: AccountKey, leases: &Leases, moment: Moment) {
        let now = self.at(moment);
        if self.allowance.is_due(now) && !leases.nudge(key.subject()) {
            self.allowance.unanswered();
        }
    }
}

/// The allowance for a chute: its own if the user has one, else the one for all.
fn allowance(user: &UserEntry, chute: ChuteId) -> (Bucket, u64) {
    let own = Bucket::Chute(chute);
    match user.quotas.get(&own) {
        Some(quota) => (own, *quota),
        None => (Bucket::Default, user.quotas.get(&Bucket::Default).copied().unwrap_or(0)),
    }
}

fn next_midnight(now: DateTime<Utc>) -> DateTime<Utc> {
    let tomorrow = now.date_naive().checked_add_days(Days::new(1)).unwrap_or(NaiveDate::MAX);
    tomorrow.and_time(NaiveTime::MIN).and_utc()
}

/// Forgets accounts without a call in flight that are of another day, or of which nothing is left. Calls of today that
/// control has not counted are never forgotten, however long it does not.
fn sweep(accounts: &Accounts, now: DateTime<Utc>) {
    let today = now.date_naive();
    accounts
        .retain(|key, account| account.allowance.in_flight() > 0 || (key.day == today && !account.allowance.is_idle()));
}

#[cfg(test)]
mod interleavings;
#[cfg(test)]
mod tests;
