//! Commands about what is published to gateways.

use chrono::TimeDelta;
use clap::Subcommand;
use serde_json::json;

use super::{Admin, Answer};
use crate::db;
use crate::db::outbox;
use crate::db::publications::{self, Publication};

/// How long what is published carries the operator's word, so that a gateway that was away hears it too.
const INSISTS_FOR: TimeDelta = TimeDelta::seconds(60);

#[derive(Subcommand)]
pub(super) enum DirectoryCommand {
    /// Makes gateways take over the directory although it looks wrong.
    Force,
}

#[derive(Subcommand)]
pub(super) enum PrincipalsCommand {
    /// Publishes all principals anew and makes gateways take them over although they look too few.
    Force,
}

impl Admin {
    pub(super) async fn directory(&self, command: DirectoryCommand) -> Answer {
        let DirectoryCommand::Force = command;
        self.force(Publication::Directory, publications::DIRECTORY_PUBLISHER).await
    }

    pub(super) async fn principals(&self, command: PrincipalsCommand) -> Answer {
        let PrincipalsCommand::Force = command;
        self.force(Publication::Principals, outbox::PUBLISHER).await
    }

    async fn force(&self, publication: Publication, publisher: &str) -> Answer {
        let until = self.clock.now() + INSISTS_FOR;
        let mut transaction = self.db.begin().await?;
        publications::force(&mut *transaction, publication, until).await?;
        db::duty::nudge(&mut *transaction, publisher).await?;
        transaction.commit().await?;
        Ok(json!({ "forced_until": until }))
    }
}
