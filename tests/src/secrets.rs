//! The secrets of one stack, made once and kept beside its data.

use std::path::Path;

use anyhow::Context;
use rand::RngCore;
use serde::{Deserialize, Serialize};

use crate::private;

const FILE: &str = "secrets.json";

/// Passwords, keys and seeds; each is random text of its own.
#[derive(Clone, Serialize, Deserialize)]
pub struct Secrets {
    /// Password of the database's superuser.
    pub postgres_superuser: String,
    /// Password of control's database role.
    pub postgres: String,
    /// Password of control's Redis user.
    pub redis_control: String,
    /// Password of the gateways' Redis user.
    pub redis_gateway: String,
    /// Access key of the object store.
    pub store_access_key: String,
    /// Secret key of the object store.
    pub store_secret_key: String,
    /// Credential of the internal listeners.
    pub internal: String,
    /// Key under which instance keys travel in the directory.
    pub directory_key: String,
    /// Key under which instance keys rest in the database.
    pub database_key: String,
    /// Seed of session tokens.
    pub session_seed: String,
    /// Seed of the key that signs calls to instances.
    pub call_seed: String,
    /// Seed of the key that signs extrinsics.
    pub chain_seed: String,
    /// Seed of the sample miner's hotkey.
    pub miner_seed: String,
}

impl Secrets {
    /// Reads the secrets of a folder, or makes them at its first start.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn of_folder(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join(FILE);
        if path.exists() {
            let text = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
            return serde_json::from_slice(&text).with_context(|| format!("reading {}", path.display()));
        }
        let secrets = Self::random();
        private::write(&path, &serde_json::to_vec_pretty(&secrets)?)?;
        Ok(secrets)
    }

    fn random() -> Self {
        Self {
            postgres_superuser: random_hex(),
            postgres: random_hex(),
            redis_control: random_hex(),
            redis_gateway: random_hex(),
            store_access_key: random_hex(),
            store_secret_key: random_hex(),
            internal: random_hex(),
            directory_key: random_hex(),
            database_key: random_hex(),
            session_seed: random_hex(),
            call_seed: random_hex(),
            chain_seed: random_hex(),
            miner_seed: random_hex(),
        }
    }
}

/// 32 random bytes as hex.
fn random_hex() -> String {
    let mut bytes = [0; 32];
    rand::rng().fill_bytes(&mut bytes);
    hex::encode(bytes)
}

/// A random instance key: 16 bytes as hex.
#[must_use]
pub fn random_instance_key() -> String {
    let mut bytes = [0; 16];
    rand::rng().fill_bytes(&mut bytes);
    hex::encode(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn secrets_are_kept_where_only_the_owner_reads_them() {
        let folder = tempfile::tempdir().unwrap();
        let made = Secrets::of_folder(folder.path()).unwrap();
        let read = Secrets::of_folder(folder.path()).unwrap();
        assert_eq!(made.call_seed, read.call_seed);
        assert_ne!(made.call_seed, made.chain_seed);
        let mode = folder.path().join(FILE).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
