//! Commands about API keys.

use clap::{Args, Subcommand};
use protocol::credential::{ApiKey, Scope, Scopes};
use protocol::ids::ApiKeyId;
use serde_json::json;

use super::{Admin, Answer, Failure, find};
use crate::db;
use crate::db::outbox::{self, Change};

#[derive(Subcommand)]
pub(super) enum Command {
    /// Makes a key and shows it, once.
    Create(Create),
    /// Withdraws a key for good.
    Revoke(Revoke),
}

#[derive(Args)]
pub(super) struct Create {
    /// Identifier or name of the user.
    #[arg(long)]
    user: String,
    /// Name of the key, unique among the user's valid ones; without it the key's identifier.
    #[arg(long)]
    name: Option<String>,
    /// The key may do everything its user may.
    #[arg(long, conflicts_with = "scope", required_unless_present = "scope")]
    admin: bool,
    /// The key may do this: JSON such as {"object_type":"chutes","action":"invoke"}; repeatable.
    #[arg(long, value_parser = scope)]
    scope: Vec<Scope>,
}

#[derive(Args)]
pub(super) struct Revoke {
    /// Identifier of the key.
    #[arg(long)]
    key: ApiKeyId,
}

impl Admin {
    pub(super) async fn key(&self, command: Command) -> Answer {
        match command {
            Command::Create(wanted) => self.create_key(wanted).await,
            Command::Revoke(wanted) => self.revoke_key(wanted.key).await,
        }
    }

    async fn create_key(&self, wanted: Create) -> Answer {
        let mut transaction = self.db.begin().await?;
        let user = find::user(&mut transaction, &wanted.user).await?;
        // The account stays as it is until the commit: a deleted one gets no key.
        db::users::touch(&mut *transaction, user.id).await?;
        let user = find::user(&mut transaction, &user.id.to_string()).await?;
        let key = ApiKey::generate(user.id);
        let name = wanted.name.unwrap_or_else(|| key.id().to_string());
        let scopes = if wanted.admin { Scopes::Admin } else { Scopes::Listed(wanted.scope) };
        db::api_keys::insert(&mut *transaction, &key, &name, &scopes, self.clock.now()).await?;
        outbox::record(&mut *transaction, &[Change::User(user.id), Change::Key(key.id())]).await?;
        transaction.commit().await?;
        Ok(json!({ "api_key_id": key.id(), "user_id": user.id, "name": name, "secret_key": key.reveal() }))
    }

    async fn revoke_key(&self, id: ApiKeyId) -> Answer {
        let mut transaction = self.db.begin().await?;
        if !db::api_keys::revoke(&mut *transaction, id, self.clock.now()).await? {
            return Err(Failure::refused(format!("there is no valid key {id}")));
        }
        outbox::record(&mut *transaction, &[Change::Key(id)]).await?;
        transaction.commit().await?;
        Ok(json!({ "api_key_id": id, "revoked": true }))
    }
}

fn scope(text: &str) -> Result<Scope, String> {
    serde_json::from_str(text).map_err(|error| format!("not a scope: {error}"))
}
