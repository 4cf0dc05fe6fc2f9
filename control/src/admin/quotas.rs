//! Commands about what users may use and what they have.

use clap::{Args, Subcommand};
use protocol::principal::Bucket;
use serde_json::json;

use super::{Admin, Answer, find};
use crate::db;
use crate::db::outbox::{self, Change};
use crate::domain::money::Amount;

#[derive(Subcommand)]
pub(super) enum QuotaCommand {
    /// Sets how many calls a day cost nothing.
    Set(SetQuota),
}

#[derive(Subcommand)]
pub(super) enum BalanceCommand {
    /// Sets a balance.
    Set(SetBalance),
}

#[derive(Args)]
pub(super) struct SetQuota {
    /// Identifier or name of the user.
    #[arg(long)]
    user: String,
    /// Identifier or slug of a chute with an allowance of its own.
    #[arg(long)]
    chute: Option<String>,
    /// Calls per day.
    #[arg(long)]
    calls: u32,
}

#[derive(Args)]
pub(super) struct SetBalance {
    /// Identifier or name of the user.
    #[arg(long)]
    user: String,
    /// Decimal dollars, exact to twelve decimals.
    #[arg(long, allow_negative_numbers = true)]
    usd: Amount,
}

impl Admin {
    pub(super) async fn quota(&self, command: QuotaCommand) -> Answer {
        let QuotaCommand::Set(wanted) = command;
        let mut transaction = self.db.begin().await?;
        let user = find::user(&mut transaction, &wanted.user).await?;
        let bucket = match &wanted.chute {
            Some(chute) => Bucket::Chute(find::chute(&mut transaction, chute).await?),
            None => Bucket::Default,
        };
        db::users::touch(&mut *transaction, user.id).await?;
        db::quotas::set(&mut *transaction, user.id, bucket, u64::from(wanted.calls)).await?;
        outbox::record(&mut *transaction, &[Change::User(user.id)]).await?;
        transaction.commit().await?;
        Ok(json!({ "user_id": user.id, "bucket": bucket, "calls": wanted.calls }))
    }

    pub(super) async fn balance(&self, command: BalanceCommand) -> Answer {
        let BalanceCommand::Set(wanted) = command;
        let mut transaction = self.db.begin().await?;
        let user = find::user(&mut transaction, &wanted.user).await?;
        db::balances::set(&mut *transaction, user.id, wanted.usd).await?;
        outbox::record(&mut *transaction, &[Change::Funds(user.id)]).await?;
        transaction.commit().await?;
        Ok(json!({ "user_id": user.id, "balance_usd": wanted.usd.to_string() }))
    }
}
