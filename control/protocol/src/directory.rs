//! The snapshot that control publishes and gateways route by.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::envelope::Generation;
use crate::ids::{ChuteId, ImageId, InstanceId, UserId};
use crate::sealing::SealedKey;
use crate::signing::Hotkey;
use crate::slug::Slug;

/// Everything a gateway routes by: which chutes there are, who may call them, where they run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Directory {
    /// All chutes, ordered by id.
    pub chutes: Vec<Chute>,
    /// Users whose public LLM chutes appear in the model list and win a name shared by several chutes.
    pub official_users: Vec<UserId>,
    /// Other names of models: alias → chute name.
    pub aliases: BTreeMap<String, String>,
}

/// One deployed application and its running copies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Chute {
    /// Its identifier.
    pub id: ChuteId,
    /// Its name, for LLM chutes the model's name.
    pub name: String,
    /// Its label in host names.
    pub slug: Slug,
    /// Its owner.
    pub owner: UserId,
    /// Whether everybody may call it.
    pub public: bool,
    /// Users who may call it though it is private.
    pub shares: Vec<UserId>,
    /// The façade it serves, if any.
    pub template: Option<Template>,
    /// Its entry points.
    pub cords: Vec<Cord>,
    /// The image it runs.
    pub image: ImageId,
    /// The owner of that image.
    pub image_owner: UserId,
    /// The model object its engine reported, relayed in the model list.
    pub model: Option<serde_json::Value>,
    /// USD prices, in micro-dollars per million tokens; none until set.
    pub price: Option<TokenPrice>,
    /// Calls one instance serves at once.
    pub concurrency: u32,
    /// Compute multiplier × boost, recorded with each attempt.
    pub multiplier: f64,
    /// Successful calls so far, for the order of the model list.
    pub invocations: u64,
    /// Calls per minute and user, instead of the gateway's default.
    pub rate_per_minute: Option<u32>,
    /// Calls at once per user, instead of the gateway's default.
    pub max_concurrent: Option<u32>,
    /// Whether it is under maintenance: calls get 429 `model is under maintenance`.
    pub maintenance: bool,
    /// Its active, verified instances.
    pub instances: Vec<Instance>,
}

/// A family of chutes that a façade host understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Template {
    /// Text generation with an OpenAI-compatible engine (`llm.`).
    Vllm,
    /// Text embeddings (`embed.`).
    Embedding,
    /// Image generation (`image.`).
    Diffusion,
}

/// One entry point of a chute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cord {
    /// The function's name, recorded with each attempt.
    pub function: String,
    /// Path at the instance, with its leading slash.
    pub path: String,
    /// Path at the edge, with its leading slash; none: not reachable by host name.
    pub public_path: Option<String>,
    /// Method at the edge, upper case.
    pub public_method: String,
    /// Whether it answers with a stream.
    pub stream: bool,
    /// Whether the body goes on as `json=` to an engine beside the chute.
    pub passthrough: bool,
    /// Content type of its answers; streams of LLM chutes are always `text/event-stream`.
    pub content_type: Option<String>,
}

/// Prices of a model in micro-dollars per million tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenPrice {
    /// Price of prompt tokens.
    pub input: u64,
    /// Price of completion tokens.
    pub output: u64,
}

/// One running copy of a chute.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    /// Its identifier.
    pub id: InstanceId,
    /// Address, an IP literal or a name.
    pub host: String,
    /// Port of its main server.
    pub port: u16,
    /// The miner's place on the subnet.
    pub miner_uid: i32,
    /// The miner's hotkey.
    pub hotkey: Hotkey,
    /// The envelope it speaks.
    pub generation: Generation,
    /// Version of the row, bound into the sealed key.
    pub version: u64,
    /// Its symmetric key, sealed under the directory key.
    pub key: SealedKey,
}

/// First line of a snapshot: what the second line must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Grows with each snapshot.
    pub version: u64,
    /// When control made it.
    pub made_at: DateTime<Utc>,
    /// Number of chutes in it.
    pub chutes: usize,
    /// Number of instances in it.
    pub instances: usize,
    /// Hex SHA-256 of the body.
    pub sha256: String,
    /// Whether the operator insists on it although it looks wrong.
    pub forced: bool,
}

/// Why a snapshot is not taken over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The text ends early or was changed on its way.
    #[error("snapshot is damaged: {0}")]
    Damaged(&'static str),
    /// The body is not a directory.
    #[error("snapshot cannot be read: {0}")]
    Unreadable(String),
    /// There is nothing in it although the one in force has chutes.
    #[error("snapshot is empty, the one in force has {0} chutes")]
    Empty(usize),
    /// It is older than the one in force.
    #[error("snapshot {next} is older than {current} in force")]
    Older {
        /// Version in force.
        current: u64,
        /// Version refused.
        next: u64,
    },
    /// More than half of the chutes or instances are gone.
    #[error("snapshot has {next} {what}, the one in force {current}")]
    Shrunk {
        /// `chutes` or `instances`.
        what: &'static str,
        /// Number in force.
        current: usize,
        /// Number in the snapshot.
        next: usize,
    },
}

impl Refused {
    /// Every label.
    pub const LABELS: [&str; 5] = ["damaged", "unreadable", "empty", "older", "shrunk"];

    /// Label of the metric that counts refusals.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Damaged(_) => "damaged",
            Self::Unreadable(_) => "unreadable",
            Self::Empty(_) => "empty",
            Self::Older { .. } => "older",
            Self::Shrunk { .. } => "shrunk",
        }
    }
}

/// Fewer instances than this come and go without suspicion.
const SUSPICIOUS_FROM: usize = 16;

impl Directory {
    /// Number of instances of all chutes.
    #[must_use]
    pub fn instance_count(&self) -> usize {
        self.chutes.iter().map(|chute| chute.instances.len()).sum()
    }

    /// The text of a snapshot: header line, body line.
    ///
    /// # Panics
    /// Never: the types here always serialise.
    #[must_use]
    pub fn to_snapshot(&self, version: u64, made_at: DateTime<Utc>, forced: bool) -> String {
        let body = serde_json::to_string(self).expect("a directory serialises");
        let header = Header {
            version,
            made_at,
            chutes: self.chutes.len(),
            instances: self.instance_count(),
            sha256: hex::encode(Sha256::digest(body.as_bytes())),
            forced,
        };
        let header = serde_json::to_string(&header).expect("a header serialises");
        format!("{header}\n{body}")
    }

    /// Reads a snapshot and checks that it is whole.
    ///
    /// # Errors
    /// [`Refused::Damaged`] or [`Refused::Unreadable`].
    pub fn from_snapshot(text: &str) -> Result<(Header, Self), Refused> {
        let (header, body) = text.split_once('\n').ok_or(Refused::Damaged("no header line"))?;
        let header: Header = serde_json::from_str(header).map_err(|error| Refused::Unreadable(error.to_string()))?;
        if hex::encode(Sha256::digest(body.as_bytes())) != header.sha256 {
            return Err(Refused::Damaged("body does not have the stated hash"));
        }
        let directory: Self = serde_json::from_str(body).map_err(|error| Refused::Unreadable(error.to_string()))?;
        if directory.chutes.len() != header.chutes || directory.instance_count() != header.instances {
            return Err(Refused::Damaged("body does not have the stated counts"));
        }
        Ok((header, directory))
    }
}

impl Header {
    /// Whether this snapshot may replace the one in force.
    ///
    /// # Errors
    /// Says why not; never for a forced one, which may be older too: after a Postgres that was put back to an earlier
    /// state, versions begin again further down, and from then on those are compared.
    pub fn may_replace(&self, current: &Self) -> Result<(), Refused> {
        if self.forced {
            return Ok(());
        }
        if self.version < current.version {
            return Err(Refused::Older { current: current.version, next: self.version });
        }
        if self.chutes == 0 && current.chutes > 0 {
            return Err(Refused::Empty(current.chutes));
        }
        if self.chutes * 2 < current.chutes {
            return Err(Refused::Shrunk { what: "chutes", current: current.chutes, next: self.chutes });
        }
        if current.instances >= SUSPICIOUS_FROM && self.instances * 2 < current.instances {
            return Err(Refused::Shrunk { what: "instances", current: current.instances, next: self.instances });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(version: u64, chutes: usize, instances: usize, forced: bool) -> Header {
        Header { version, made_at: DateTime::UNIX_EPOCH, chutes, instances, sha256: String::new(), forced }
    }

    #[test]
    fn a_snapshot_survives_its_way_and_a_changed_byte_does_not() {
        let directory = Directory { aliases: [("a".into(), "b".into())].into(), ..Directory::default() };
        let text = directory.to_snapshot(7, DateTime::UNIX_EPOCH, false);
        let (header, read) = Directory::from_snapshot(&text).unwrap();
        assert_eq!((header.version, read), (7, directory));
        assert!(matches!(Directory::from_snapshot(&text.replace("\"b\"", "\"c\"")), Err(Refused::Damaged(_))));
        assert!(matches!(Directory::from_snapshot(&text[..text.len() - 1]), Err(Refused::Damaged(_))));
        assert!(matches!(Directory::from_snapshot(""), Err(Refused::Damaged(_))));
    }

    #[test]
    fn empty_older_and_halved_snapshots_are_refused_unless_forced() {
        let current = header(10, 10, 40, false);
        assert!(header(10, 5, 20, false).may_replace(&current).is_ok());
        assert_eq!(header(9, 10, 40, false).may_replace(&current).unwrap_err().label(), "older");
        assert!(header(9, 10, 40, true).may_replace(&current).is_ok());
        assert_eq!(header(11, 0, 0, false).may_replace(&current).unwrap_err().label(), "empty");
        assert_eq!(header(11, 4, 40, false).may_replace(&current).unwrap_err().label(), "shrunk");
        assert_eq!(header(11, 10, 19, false).may_replace(&current).unwrap_err().label(), "shrunk");
        assert!(header(11, 0, 0, true).may_replace(&current).is_ok());
        assert!(header(11, 1, 0, false).may_replace(&header(10, 2, 3, false)).is_ok());
    }
}
