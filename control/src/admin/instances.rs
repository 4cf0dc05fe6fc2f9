//! Commands about running copies of chutes.

use clap::{Args, Subcommand};
use protocol::envelope::Generation;
use protocol::ids::InstanceId;
use protocol::sealing::InstanceKey;
use protocol::signing::Hotkey;
use serde_json::json;

use super::{Admin, Answer, Failure, find};
use crate::db;
use crate::db::instances::{FIRST_VERSION, Instance};
use crate::db::publications;
use crate::domain::host::Host;

#[derive(Subcommand)]
pub(super) enum Command {
    /// Makes an instance known, active and verified.
    Add(Add),
    /// Removes an instance.
    Remove(Remove),
}

#[derive(Args)]
pub(super) struct Add {
    /// Identifier or slug of the chute.
    #[arg(long)]
    chute: String,
    /// IP address or DNS name.
    #[arg(long)]
    host: Host,
    /// Port of its main server.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// The miner's place on the subnet.
    #[arg(long)]
    miner_uid: u16,
    /// The miner's hotkey.
    #[arg(long)]
    hotkey: Hotkey,
    /// Its symmetric key: 32 hex digits.
    #[arg(long, value_parser = InstanceKey::from_hex)]
    key: InstanceKey,
    /// The envelope it speaks.
    #[arg(long, default_value = "sdk-0.3")]
    generation: Generation,
}

#[derive(Args)]
pub(super) struct Remove {
    /// Identifier of the instance.
    #[arg(long)]
    instance: InstanceId,
}

impl Admin {
    pub(super) async fn instance(&self, command: Command) -> Answer {
        match command {
            Command::Add(wanted) => self.add_instance(wanted).await,
            Command::Remove(wanted) => self.remove_instance(wanted.instance).await,
        }
    }

    async fn add_instance(&self, wanted: Add) -> Answer {
        let mut transaction = self.db.begin().await?;
        let id = InstanceId::random();
        let instance = Instance {
            id,
            chute: find::chute(&mut transaction, &wanted.chute).await?,
            host: wanted.host.to_string(),
            port: wanted.port,
            miner_uid: i32::from(wanted.miner_uid),
            hotkey: wanted.hotkey,
            generation: wanted.generation,
            sealed_key: self.database_key.seal(&wanted.key, id, FIRST_VERSION),
            version: FIRST_VERSION,
        };
        db::instances::insert(&mut *transaction, &instance, self.clock.now()).await?;
        publications::nudge_directory(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(json!({ "instance_id": id, "chute_id": instance.chute }))
    }

    async fn remove_instance(&self, id: InstanceId) -> Answer {
        let mut transaction = self.db.begin().await?;
        if !db::instances::delete(&mut *transaction, id).await? {
            return Err(Failure::refused(format!("there is no instance {id}")));
        }
        publications::nudge_directory(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(json!({ "instance_id": id, "removed": true }))
    }
}
