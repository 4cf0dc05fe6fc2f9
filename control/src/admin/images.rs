//! Commands about container images.

use clap::{Args, Subcommand};
use protocol::ids::ImageId;
use serde_json::json;

use super::{Admin, Answer, find};
use crate::db;

#[derive(Subcommand)]
pub(super) enum Command {
    /// Makes an image known.
    Create(Create),
}

#[derive(Args)]
pub(super) struct Create {
    /// Identifier or name of the owner.
    #[arg(long)]
    user: String,
    /// Name of the image.
    #[arg(long)]
    name: String,
    /// Tag of the image.
    #[arg(long)]
    tag: String,
}

impl Admin {
    pub(super) async fn image(&self, command: Command) -> Answer {
        let Command::Create(wanted) = command;
        let mut transaction = self.db.begin().await?;
        let owner = find::user(&mut transaction, &wanted.user).await?;
        let id = ImageId::of_tag(&owner.username, &wanted.name, &wanted.tag);
        let now = self.clock.now();
        db::images::insert(&mut *transaction, id, owner.id, &wanted.name, &wanted.tag, now).await?;
        transaction.commit().await?;
        Ok(json!({ "image_id": id, "user_id": owner.id, "name": wanted.name, "tag": wanted.tag }))
    }
}
