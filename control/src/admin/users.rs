//! Commands about accounts and their sessions.

use std::time::Duration;

use clap::{Args, Subcommand};
use protocol::ids::UserId;
use protocol::signing::Hotkey;
use serde_json::json;

use super::find::{self, Limit};
use super::{Admin, Answer, Failure};
use crate::db;
use crate::db::outbox::{self, Change};
use crate::domain::fingerprint::Fingerprint;
use crate::domain::money::Amount;

/// Seconds of a day.
const DAY: u64 = 24 * 60 * 60;

#[derive(Subcommand)]
pub(super) enum Command {
    /// Makes an account and shows its fingerprint, once.
    Create(Create),
    /// Changes permissions and limits.
    Set(Set),
    /// Deletes an account: its keys and sessions end, its chutes are no longer routed.
    Delete(Named),
    /// Shows an account.
    Show(Named),
}

#[derive(Subcommand)]
pub(super) enum TokenCommand {
    /// Makes a session token.
    Issue(Issue),
    /// Ends all sessions of an account.
    End(Named),
}

#[derive(Args)]
pub(super) struct Create {
    /// Name of the account.
    #[arg(long)]
    username: String,
    /// Hotkey that signs for the account.
    #[arg(long)]
    hotkey: Option<Hotkey>,
    /// Permissions and limits.
    #[command(flatten)]
    limits: Limits,
}

#[derive(Args)]
pub(super) struct Set {
    /// Identifier or name.
    #[arg(long)]
    user: String,
    /// Permissions and limits.
    #[command(flatten)]
    limits: Limits,
}

#[derive(Args)]
pub(super) struct Limits {
    /// Permission bits as a number.
    #[arg(long)]
    permissions: Option<u32>,
    /// Calls per minute, or `default`.
    #[arg(long)]
    rate: Option<Limit>,
    /// Calls at once, or `default`.
    #[arg(long)]
    concurrent: Option<Limit>,
}

#[derive(Args)]
pub(super) struct Named {
    /// Identifier or name.
    #[arg(long)]
    user: String,
}

#[derive(Args)]
pub(super) struct Issue {
    /// Identifier or name.
    #[arg(long)]
    user: String,
    /// Days until the token ends.
    #[arg(long, default_value = "7", value_parser = clap::value_parser!(u32).range(1..=365))]
    days: u32,
}

impl Limits {
    /// What is given replaces what the account has.
    fn apply(&self, user: &mut db::users::User) {
        user.permissions = self.permissions.map_or(user.permissions, u64::from);
        user.rate_per_minute = self.rate.map_or(user.rate_per_minute, Limit::value);
        user.max_concurrent = self.concurrent.map_or(user.max_concurrent, Limit::value);
    }
}

impl Admin {
    pub(super) async fn user(&self, command: Command) -> Answer {
        match command {
            Command::Create(wanted) => self.create_user(&wanted).await,
            Command::Set(wanted) => self.set_user(&wanted).await,
            Command::Delete(named) => self.delete_user(&named.user).await,
            Command::Show(named) => self.show_user(&named.user).await,
        }
    }

    pub(super) async fn token(&self, command: TokenCommand) -> Answer {
        match command {
            TokenCommand::Issue(wanted) => {
                let user = find::user(&mut *self.db.acquire().await?, &wanted.user).await?;
                let lifetime = Duration::from_secs(u64::from(wanted.days) * DAY);
                let token = self.sessions.sign(user.id, user.generation, self.clock.now(), lifetime);
                Ok(json!({ "user_id": user.id, "token": token }))
            }
            TokenCommand::End(named) => {
                let mut transaction = self.db.begin().await?;
                let user = find::user(&mut transaction, &named.user).await?;
                let generation = db::users::end_sessions(&mut *transaction, user.id).await?;
                outbox::record(&mut *transaction, &[Change::User(user.id)]).await?;
                transaction.commit().await?;
                Ok(json!({ "user_id": user.id, "generation": generation }))
            }
        }
    }

    async fn create_user(&self, wanted: &Create) -> Answer {
        let fingerprint = Fingerprint::generate();
        let hash = fingerprint.hash();
        let id = UserId::of_fingerprint_hash(&hash.to_string());
        let mut changes = vec![Change::User(id), Change::Funds(id)];
        let mut transaction = self.db.begin().await?;
        db::users::insert(&mut *transaction, id, &wanted.username, &hash, self.clock.now()).await?;
        db::balances::open(&mut *transaction, id).await?;
        let mut user = find::user(&mut transaction, &id.to_string()).await?;
        wanted.limits.apply(&mut user);
        db::users::update_limits(&mut *transaction, &user).await?;
        if let Some(hotkey) = &wanted.hotkey {
            if !db::hotkeys::give(&mut *transaction, hotkey, id).await? {
                return Err(Failure::refused(format!("the hotkey is another user's: {hotkey}")));
            }
            changes.push(Change::Hotkey(hotkey.clone()));
        }
        outbox::record(&mut *transaction, &changes).await?;
        transaction.commit().await?;
        Ok(json!({ "user_id": id, "username": wanted.username, "fingerprint": fingerprint.reveal() }))
    }

    async fn set_user(&self, wanted: &Set) -> Answer {
        let mut transaction = self.db.begin().await?;
        let found = find::user(&mut transaction, &wanted.user).await?;
        // The row is locked before it is read to be changed.
        db::users::touch(&mut *transaction, found.id).await?;
        let mut user = find::user(&mut transaction, &found.id.to_string()).await?;
        wanted.limits.apply(&mut user);
        db::users::update_limits(&mut *transaction, &user).await?;
        outbox::record(&mut *transaction, &[Change::User(user.id)]).await?;
        transaction.commit().await?;
        self.show_user(&user.id.to_string()).await
    }

    async fn delete_user(&self, named: &str) -> Answer {
        let now = self.clock.now();
        let mut transaction = self.db.begin().await?;
        let user = find::user(&mut transaction, named).await?;
        db::users::delete(&mut *transaction, user.id, now).await?;
        let keys = db::api_keys::revoke_all(&mut *transaction, user.id, now).await?;
        let hotkey = db::hotkeys::take(&mut *transaction, user.id).await?;
        let mut changes = vec![Change::User(user.id)];
        changes.extend(keys.into_iter().map(Change::Key));
        changes.extend(hotkey.map(Change::Hotkey));
        outbox::record(&mut *transaction, &changes).await?;
        db::publications::nudge_directory(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(json!({ "user_id": user.id, "deleted": true }))
    }

    async fn show_user(&self, named: &str) -> Answer {
        let user = find::user(&mut *self.db.acquire().await?, named).await?;
        let missing = || Failure::refused(format!("there is no user {named}"));
        let identity = db::users::entry(&self.db, user.id).await?.ok_or_else(missing)?;
        let funds = db::balances::entry(&self.db, user.id, self.clock.now()).await?.ok_or_else(missing)?;
        let balance = Amount::from_pico(funds.entry.balance).map(|amount| amount.to_string());
        let hotkey = db::hotkeys::of_user(&self.db, user.id).await?;
        Ok(json!({
            "user_id": user.id,
            "username": user.username,
            "hotkey": hotkey,
            "permissions": user.permissions,
            "rate_per_minute": user.rate_per_minute,
            "max_concurrent": user.max_concurrent,
            "generation": user.generation,
            "quotas": identity.entry.quotas,
            "used_today": funds.entry.used,
            "balance_usd": balance,
        }))
    }
}
