//! `stack.json`: what tools need to know of a running stack; its names are fixed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::private;

/// Its name in the folder of the stack.
pub const FILE: &str = "stack.json";

/// A running stack.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Description {
    /// Domain whose labels are hosts.
    pub domain: String,
    /// The certificate authority, in PEM.
    pub ca: PathBuf,
    /// TLS port of the first gateway.
    pub https_port: u16,
    /// Plain port of the first gateway.
    pub http_port: u16,
    /// Addresses of the fixed hosts.
    pub urls: Urls,
    /// All gateways.
    pub gateways: Vec<Gateway>,
    /// The demo user's key.
    pub api_key: String,
    /// The demo user.
    pub user: User,
    /// The text chute.
    pub chute: Chute,
    /// The validator's two keys.
    pub keys: Keys,
    /// Control's database.
    pub postgres_url: String,
    /// Redis.
    pub redis: Redis,
    /// The object store.
    pub s3: Store,
    /// Control's internal listener.
    pub internal: Internal,
    /// Process numbers by program.
    pub pids: BTreeMap<String, Vec<u32>>,
}

/// Addresses of the fixed hosts at the first gateway.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Urls {
    /// The control plane.
    pub api: String,
    /// Text.
    pub llm: String,
    /// Embeddings.
    pub embed: String,
    /// Images.
    pub image: String,
}

/// One gateway.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gateway {
    /// Its TLS port.
    pub https_port: u16,
    /// Its internal port.
    pub internal_port: u16,
    /// Its process.
    pub pid: u32,
}

/// A user.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct User {
    /// Identifier.
    pub id: String,
    /// Name.
    pub username: String,
}

/// A chute.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Chute {
    /// Identifier.
    pub id: String,
    /// Label in host names.
    pub slug: String,
    /// Host name.
    pub host: String,
    /// Model.
    pub model: String,
}

/// The validator's two keys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Keys {
    /// Signs calls to instances.
    pub call: Key,
    /// Signs extrinsics.
    pub chain: Key,
}

/// A key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Key {
    /// SS58 address.
    pub address: String,
    /// Seed as hex.
    pub seed: String,
}

/// Redis by the user of each program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Redis {
    /// Address per program.
    pub url: BTreeMap<String, String>,
}

/// The object store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Store {
    /// Address.
    pub endpoint: String,
    /// Bucket of the exports.
    pub bucket: String,
    /// Access key.
    pub access_key: String,
    /// Secret key.
    pub secret_key: String,
}

/// Control's internal listener.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Internal {
    /// Address of the api role's listener.
    pub url: String,
    /// Bearer credential of all internal listeners.
    pub credential: String,
}

impl Description {
    /// Writes the file, readable by its owner alone.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn write(&self, folder: &Path) -> anyhow::Result<()> {
        private::write(&folder.join(FILE), &serde_json::to_vec_pretty(self)?)
    }
}

#[cfg(test)]
mod tests;
