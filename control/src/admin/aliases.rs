//! Commands about other names of models.

use clap::{Args, Subcommand};
use serde_json::json;

use super::{Admin, Answer, Failure};
use crate::db;
use crate::db::publications;

#[derive(Subcommand)]
pub(super) enum Command {
    /// Sets an alias.
    Set(Set),
    /// Removes an alias.
    Remove(Remove),
}

#[derive(Args)]
pub(super) struct Set {
    /// The other name.
    #[arg(long)]
    alias: String,
    /// Name of the chute.
    #[arg(long)]
    name: String,
}

#[derive(Args)]
pub(super) struct Remove {
    /// The other name.
    #[arg(long)]
    alias: String,
}

impl Admin {
    pub(super) async fn alias(&self, command: Command) -> Answer {
        let mut transaction = self.db.begin().await?;
        let answer = match command {
            Command::Set(Set { alias, name }) => {
                db::aliases::set(&mut *transaction, &alias, &name).await?;
                json!({ "alias": alias, "name": name })
            }
            Command::Remove(Remove { alias }) => {
                if !db::aliases::remove(&mut *transaction, &alias).await? {
                    return Err(Failure::refused(format!("there is no alias {alias}")));
                }
                json!({ "alias": alias, "removed": true })
            }
        };
        publications::nudge_directory(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(answer)
    }
}
