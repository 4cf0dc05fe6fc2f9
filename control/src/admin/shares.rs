//! Commands about private chutes that other users may call.

use clap::{Args, Subcommand};
use serde_json::json;

use super::{Admin, Answer, Failure, find};
use crate::db;
use crate::db::publications;

#[derive(Subcommand)]
pub(super) enum Command {
    /// Lets a user call a private chute.
    Add(Share),
    /// Ends that.
    Remove(Share),
}

#[derive(Args)]
pub(super) struct Share {
    /// Identifier or slug of the chute.
    #[arg(long)]
    chute: String,
    /// Identifier or name of the user.
    #[arg(long)]
    user: String,
}

impl Admin {
    pub(super) async fn share(&self, command: Command) -> Answer {
        let (share, shared) = match command {
            Command::Add(share) => (share, true),
            Command::Remove(share) => (share, false),
        };
        let mut transaction = self.db.begin().await?;
        let chute = find::chute(&mut transaction, &share.chute).await?;
        let user = find::user(&mut transaction, &share.user).await?.id;
        if shared {
            db::shares::add(&mut *transaction, chute, user).await?;
        } else if !db::shares::remove(&mut *transaction, chute, user).await? {
            return Err(Failure::refused("the chute is not shared with this user"));
        }
        publications::nudge_directory(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(json!({ "chute_id": chute, "user_id": user, "shared": shared }))
    }
}
