//! The daily allowance of calls that cost nothing.
//!
//! Used are: the calls control has counted (`FundsEntry::used`), this process's delivered calls that control has not
//! counted yet (above our mark in the same entry), and the calls in flight. A call in flight holds a place, which
//! becomes a used one when it is delivered and is given back when it is not. Places are slots that all gateways share:
//! what control has counted belongs to nobody, everything else is in some gateway's claim, so that all together never
//! let more than the allowance through without a balance. A place has no share: with Redis away only what is ready
//! serves, and a balance pays for nothing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Days, NaiveDate, NaiveTime, TimeDelta, Utc};
use dashmap::DashMap;
use protocol::ids::{ChuteId, UserId, WriterId};
use protocol::lease::holding::{Holding, Now, Verdict};
use protocol::lease::{Answer, Ask, Redis, Terms};
use protocol::principal::{Bucket, FundsEntry, UserEntry, permission};

use crate::clock::Clock;
use crate::lease::{Book, Leases, Moment, Patience, Subject, Survey};
use crate::metrics::Limit;
use crate::principals::Principals;
use crate::refusal::{Refusal, Whose};

/// Accounts that pay otherwise or not at all.
const EXEMPT: u64 = permission::FREE_ACCOUNT | permission::INVOICE_BILLING;
/// Pause between two sweeps of old accounts.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// Pause between two looks at what control has counted of accounts that are nearly used up.
const RECOUNT_EVERY: Duration = Duration::from_secs(1);
/// After this time without a call its unconfirmed calls are taken for confirmed.
const IDLE_AFTER: TimeDelta = TimeDelta::hours(1);
/// How long the calls of a gateway that is gone count: its log is adopted and counted meanwhile.
const LINGER: Duration = Duration::from_hours(1);
/// How long an allowance is believed to be used up without asking again.
const RECHECK: Duration = Duration::from_secs(1);
/// Seconds of the busiest second's calls that are kept ready, for when Redis is away; at times it is half of them.
const READY: u32 = 60;

/// Daily allowances.
pub struct Quota {
    principals: Arc<Principals>,
    leases: Arc<Leases>,
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
    /// Calls that control has counted.
    counted: u64,
    /// Places for more.
    holding: Holding,
    touched: DateTime<Utc>,
}

/// A place in an allowance, held by a call in flight.
#[must_use = "dropping it gives the place back"]
pub struct QuotaHold {
    accounts: Arc<Accounts>,
    leases: Arc<Leases>,
    key: AccountKey,
    /// Whether it is a slot that another call may have after this one.
    is_slot: bool,
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
        Ok(QuotaHold { accounts: Arc::clone(&self.accounts), leases: Arc::clone(&self.leases), key, is_slot })
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
        account.quota = quota;
        account.touched = now;
        account.recount(key, self.writer, funds);
        let (used, now) = (account.used(), moment.with(account.terms()));
        let verdict = account.holding.test(used, now);
        match verdict {
            Verdict::Fits => {
                account.holding.take(now);
                account.in_flight += 1;
            }
            Verdict::Full | Verdict::Ask | Verdict::Unknown => account.holding.missed(now),
        }
        if verdict != Verdict::Ask {
            account.nudge_if_due(key, &self.leases, moment);
        }
        verdict
    }

    /// Counts a call that is paid for, beyond the allowance.
    fn pay(&self, key: AccountKey) {
        if let Some(mut account) = self.accounts.get_mut(&key) {
            account.in_flight += 1;
        }
    }

    /// Forgets what is over, for as long as it is polled.
    pub async fn sweep_always(self: Arc<Self>, clock: Clock) {
        loop {
            tokio::time::sleep(SWEEP_EVERY).await;
            sweep(&self.accounts, clock.now());
        }
    }

    /// Learns what control has counted of accounts that are nearly used up, so that no call counts twice for long.
    pub async fn recount_always(self: Arc<Self>) {
        loop {
            tokio::time::sleep(RECOUNT_EVERY).await;
            let scarce: Vec<AccountKey> = self
                .accounts
                .iter()
                .filter(|account| !account.delivered.is_empty() && account.holding.left() < account.quota / 2)
                .map(|account| *account.key())
                .collect();
            for key in scarce {
                // What cannot be read now is read a second later.
                let Ok(funds) = self.principals.funds(key.user).await else { break };
                if let Some(mut account) = self.accounts.get_mut(&key) {
                    account.recount(key, self.writer, funds.as_deref());
                }
            }
        }
    }
}

impl Book for Quota {
    fn ask(&self, subject: &Subject, waiting: u64, moment: Moment) -> Option<Ask> {
        let mut account = self.accounts.get_mut(&AccountKey::of(subject)?)?;
        let (used, counted, now) = (account.used(), account.counted, moment.with(account.terms()));
        Some(account.holding.ask(used, counted, waiting, None, now))
    }

    fn answer(&self, subject: &Subject, asked: &Ask, answer: Option<&Answer>, moment: Moment) {
        let account = AccountKey::of(subject).and_then(|key| self.accounts.get_mut(&key));
        let Some(mut account) = account else { return };
        let now = moment.with(account.terms());
        match answer {
            Some(answer) => account.holding.answer(asked, answer, now),
            None => account.holding.unanswered(),
        }
    }

    fn survey(&self, all: bool, moment: Moment, survey: &mut Survey) {
        for mut account in self.accounts.iter_mut() {
            let (used, now) = (account.used(), moment.with(account.terms()));
            survey.ready += account.holding.free();
            survey.used += used;
            if account.holding.is_due(used, now) || (all && (used > 0 || !account.holding.is_idle())) {
                survey.due.push(account.key().subject());
            }
        }
    }

    fn lapse(&self) {
        self.accounts.iter_mut().for_each(|mut account| account.holding.lapse());
    }

    fn close(&self) {
        self.accounts.iter_mut().for_each(|mut account| account.holding.close());
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

    /// Turns the place into a used one: the call was delivered, and this is its place in our record log.
    pub fn counted(mut self, sequence: u64) {
        self.is_slot = false;
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
            let moment = self.leases.moment();
            if self.is_slot {
                account.holding.give_back(1, moment.redis);
            }
            account.nudge_if_due(self.key, &self.leases, moment);
        }
    }
}

impl Account {
    fn new(now: DateTime<Utc>) -> Self {
        let holding = Holding::default();
        Self { in_flight: 0, delivered: BTreeSet::new(), quota: 0, counted: 0, holding, touched: now }
    }

    /// Takes over what control has counted: those of our calls are its from then on.
    fn recount(&mut self, key: AccountKey, writer: WriterId, funds: Option<&FundsEntry>) {
        // An entry of another day says nothing about this one.
        let Some(funds) = funds.filter(|funds| funds.day == key.day) else { return };
        if let Some(next) = funds.marks.get(&writer).and_then(|mark| mark.checked_add(1)) {
            self.delivered = self.delivered.split_off(&next);
        }
        self.counted = funds.used.get(&key.bucket).copied().unwrap_or(0);
    }

    /// Calls in flight, and delivered ones that control has not counted.
    fn used(&self) -> u64 {
        self.delivered.len() as u64 + self.in_flight
    }

    fn terms(&self) -> Terms {
        let limit = self.quota.saturating_sub(self.counted);
        Terms { limit, linger: LINGER, recheck: RECHECK, keen: RECHECK, ready: READY, shared: false }
    }

    fn nudge_if_due(&mut self, key: AccountKey, leases: &Leases, moment: Moment) {
        let (used, now): (u64, Now) = (self.used(), moment.with(self.terms()));
        if self.holding.is_due(used, now) && !leases.nudge(key.subject()) {
            self.holding.unanswered();
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

/// Forgets accounts without a call in flight that are of another day, empty and given back, or idle for long.
fn sweep(accounts: &Accounts, now: DateTime<Utc>) {
    let today = now.date_naive();
    accounts.retain(|key, account| {
        if now - account.touched > IDLE_AFTER {
            account.delivered.clear();
        }
        let is_over = key.day != today || (account.delivered.is_empty() && account.holding.is_idle());
        account.in_flight > 0 || !is_over
    });
}

#[cfg(test)]
mod tests;
