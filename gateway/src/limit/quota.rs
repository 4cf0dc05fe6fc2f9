//! The daily allowance of calls that cost nothing.
//!
//! Used are: the calls control has counted (`FundsEntry::used`), this process's delivered calls that control has not
//! counted yet (above our mark in the same entry), and the calls in flight. A call in flight holds a place, which
//! becomes a used one when it is delivered and is given back when it is not. So one gateway never lets more than the
//! allowance through without a balance; several may exceed it together by what they have not yet confirmed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Days, NaiveDate, NaiveTime, TimeDelta, Utc};
use dashmap::DashMap;
use protocol::ids::{ChuteId, UserId, WriterId};
use protocol::principal::{Bucket, FundsEntry, UserEntry, permission};

use crate::clock::Clock;
use crate::principals::Principals;
use crate::refusal::{Refusal, Whose};

/// Accounts that pay otherwise or not at all.
const EXEMPT: u64 = permission::FREE_ACCOUNT | permission::INVOICE_BILLING;
/// Pause between two sweeps of old accounts.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// After this time without a call its unconfirmed calls are taken for confirmed.
const IDLE_AFTER: TimeDelta = TimeDelta::hours(1);

/// Daily allowances.
pub struct Quota {
    principals: Arc<Principals>,
    writer: WriterId,
    accounts: Arc<Accounts>,
}

type Accounts = DashMap<AccountKey, Account, ahash::RandomState>;

/// One allowance of one user on one day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct AccountKey {
    user: UserId,
    bucket: Bucket,
    day: NaiveDate,
}

/// What this process knows of an allowance that control does not know yet.
struct Account {
    in_flight: u64,
    /// Sequences of delivered calls; only those above our mark count.
    delivered: BTreeSet<u64>,
    quota: u64,
    touched: DateTime<Utc>,
}

/// A place in an allowance, held by a call in flight.
#[must_use = "dropping it gives the place back"]
pub struct QuotaHold {
    accounts: Arc<Accounts>,
    key: AccountKey,
}

impl Quota {
    /// Allowances of these principals; `writer` is this process's record log.
    #[must_use]
    pub fn new(principals: Arc<Principals>, writer: WriterId) -> Self {
        Self { principals, writer, accounts: Arc::default() }
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
        self.take(user, chute, funds.as_deref(), now).map(Some)
    }

    /// Forgets what is over, for as long as it is polled.
    pub async fn sweep_always(self: Arc<Self>, clock: Clock) {
        loop {
            tokio::time::sleep(SWEEP_EVERY).await;
            sweep(&self.accounts, clock.now());
        }
    }

    fn take(
        &self,
        user: &UserEntry,
        chute: ChuteId,
        funds: Option<&FundsEntry>,
        now: DateTime<Utc>,
    ) -> Result<QuotaHold, Refusal> {
        hold(&self.accounts, self.writer, user, chute, funds, now)
    }
}

impl QuotaHold {
    /// The allowance, for the record of the call.
    #[must_use]
    pub fn bucket(&self) -> Bucket {
        self.key.bucket
    }

    /// Turns the place into a used one: the call was delivered, and this is its place in our record log.
    pub fn counted(self, sequence: u64) {
        if let Some(mut account) = self.accounts.get_mut(&self.key) {
            account.delivered.insert(sequence);
            // Beyond the allowance only "all of it" counts. Confirmation goes upwards, so that as long as one of the
            // oldest were unconfirmed, all of the newest are, and these alone fill the allowance.
            while account.delivered.len() as u64 > account.quota.max(1) {
                account.delivered.pop_first();
            }
        }
    }
}

impl Drop for QuotaHold {
    fn drop(&mut self) {
        if let Some(mut account) = self.accounts.get_mut(&self.key) {
            account.in_flight = account.in_flight.saturating_sub(1);
        }
    }
}

impl Account {
    fn new(now: DateTime<Utc>) -> Self {
        Self { in_flight: 0, delivered: BTreeSet::new(), quota: 0, touched: now }
    }

    /// Calls used or held, with what control has counted.
    fn used(&mut self, key: AccountKey, writer: WriterId, funds: Option<&FundsEntry>) -> u64 {
        let counted = match funds.filter(|funds| funds.day == key.day) {
            Some(funds) => {
                if let Some(next) = funds.marks.get(&writer).and_then(|mark| mark.checked_add(1)) {
                    self.delivered = self.delivered.split_off(&next);
                }
                funds.used.get(&key.bucket).copied().unwrap_or(0)
            }
            // An entry of another day says nothing about this one.
            None => 0,
        };
        counted.saturating_add(self.delivered.len() as u64).saturating_add(self.in_flight)
    }
}

/// Takes a place, if one is left or there is a balance. Without a funds entry nothing was used and there is no balance.
fn hold(
    accounts: &Arc<Accounts>,
    writer: WriterId,
    user: &UserEntry,
    chute: ChuteId,
    funds: Option<&FundsEntry>,
    now: DateTime<Utc>,
) -> Result<QuotaHold, Refusal> {
    let (bucket, quota) = allowance(user, chute);
    let key = AccountKey { user: user.id, bucket, day: now.date_naive() };
    let mut account = accounts.entry(key).or_insert_with(|| Account::new(now));
    account.quota = quota;
    account.touched = now;
    let is_used_up = account.used(key, writer, funds) >= quota;
    if is_used_up && funds.is_none_or(|funds| funds.balance <= 0) {
        let whose = match bucket {
            Bucket::Default => Whose::User,
            Bucket::Chute(_) => Whose::Chute,
        };
        return Err(Refusal::QuotaExceeded { quota, whose, resets_at: next_midnight(now), now });
    }
    account.in_flight += 1;
    drop(account);
    Ok(QuotaHold { accounts: Arc::clone(accounts), key })
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

/// Forgets accounts without a call in flight that are of another day, empty, or idle for long.
fn sweep(accounts: &Accounts, now: DateTime<Utc>) {
    let today = now.date_naive();
    accounts.retain(|key, account| {
        let is_over = key.day != today || account.delivered.is_empty() || now - account.touched > IDLE_AFTER;
        account.in_flight > 0 || !is_over
    });
}

#[cfg(test)]
mod tests;
