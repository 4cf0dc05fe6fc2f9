//! Each Redis key, stream and channel, with a line saying who writes and who reads it.

use std::fmt;

use crate::ids::{ApiKeyId, ChuteId, InstanceId, UserId};
use crate::sealing::AnswerDigest;
use crate::signing::{Hotkey, SignatureDigest};

/// A Redis name; only the constructors here make one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key(String);

/// Prefixes of the principal keys that a gateway tracks with `CLIENT TRACKING ON BCAST`.
pub const PRINCIPAL_PREFIXES: [&str; 5] = ["key:", "user:", "hotkey:", "funds:", "principals:"];

impl Key {
    /// The directory snapshot (`directory::Snapshot` text): string. Written by `publish_directory`, read by gateways.
    #[must_use]
    pub fn directory() -> Self {
        Self("directory:snapshot".into())
    }

    /// Channel that carries the version of a new directory snapshot. Published by control, heard by gateways.
    #[must_use]
    pub fn directory_changed() -> Self {
        Self("directory:changed".into())
    }

    /// An API key (`principal::KeyEntry`): hash. Written by `publish_principals`, read by gateways.
    #[must_use]
    pub fn api_key(id: ApiKeyId) -> Self {
        Self(format!("key:{}", id.0.simple()))
    }

    /// A user's identity (`principal::UserEntry`): hash. Written by `publish_principals`, read by gateways.
    #[must_use]
    pub fn user(id: UserId) -> Self {
        Self(format!("user:{id}"))
    }

    /// Which user a hotkey belongs to (`principal::HotkeyEntry`): hash. Written by `publish_principals`, read by gateways.
    #[must_use]
    pub fn hotkey(hotkey: &Hotkey) -> Self {
        Self(format!("hotkey:{hotkey}"))
    }

    /// A user's balance and used quota (`principal::FundsEntry`): hash. Written by control alone, read by gateways.
    #[must_use]
    pub fn funds(id: UserId) -> Self {
        Self(format!("funds:{id}"))
    }

    /// Says that every principal is in Redis (`principal::Complete`): hash. Written by `publish_principals`, read by gateways.
    #[must_use]
    pub fn principals_complete() -> Self {
        Self("principals:complete".into())
    }

    /// A mark of the publisher that is filling Redis; gone when Redis was emptied meanwhile: string with a time to live.
    /// Written and read by `publish_principals`.
    #[must_use]
    pub fn principals_filling() -> Self {
        Self("principals:filling".into())
    }

    /// A hotkey signature that was consumed: string with a time to live. Written and read by the program that answers.
    #[must_use]
    pub fn signature(digest: &SignatureDigest) -> Self {
        Self(format!("signature:{digest}"))
    }

    /// Finished attempts and writers' beats: stream. Written by shippers, read and trimmed by `ingest_usage`.
    #[must_use]
    pub fn usage() -> Self {
        Self("usage".into())
    }

    /// Per writer the highest contiguous sequence that is in Postgres: hash. Written by `ingest_usage`, read by shippers.
    #[must_use]
    pub fn usage_marks() -> Self {
        Self("usage:marks".into())
    }

    /// Instances that gateways struck out and want looked at (`usage::Strike` as JSON): stream, capped. Written by gateways, read by control.
    #[must_use]
    pub fn strikes() -> Self {
        Self("strikes".into())
    }

    /// Calls in flight on one instance, one field per gateway: hash. Written by gateways, read by gateways and the autoscaler.
    #[must_use]
    pub fn connections(chute: ChuteId, instance: InstanceId) -> Self {
        Self(format!("conn:{chute}:{instance}"))
    }

    /// A call that asked not to be made twice, or its sealed answer: string with a time to live. Written and read by
    /// gateways.
    #[must_use]
    pub fn idempotent(name: &AnswerDigest) -> Self {
        Self(format!("idempotent:{}", hex::encode(name.0)))
    }

    /// The name as Redis knows it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Consumer group of `ingest_usage` on the usage stream.
pub const USAGE_GROUP: &str = "ingest";

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use uuid::uuid;

    use super::*;

    #[test]
    fn each_key_has_its_literal_text() {
        let id = uuid!("6ba7b812-9dad-11d1-80b4-00c04fd430c8");
        let hotkey = Hotkey::parse("5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY").unwrap();
        let texts = [
            (Key::directory(), "directory:snapshot"),
            (Key::directory_changed(), "directory:changed"),
            (Key::api_key(ApiKeyId(id)), "key:6ba7b8129dad11d180b400c04fd430c8"),
            (Key::user(UserId(id)), "user:6ba7b812-9dad-11d1-80b4-00c04fd430c8"),
            (Key::hotkey(&hotkey), "hotkey:5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"),
            (Key::funds(UserId(id)), "funds:6ba7b812-9dad-11d1-80b4-00c04fd430c8"),
            (Key::principals_complete(), "principals:complete"),
            (Key::principals_filling(), "principals:filling"),
            (Key::usage(), "usage"),
            (Key::usage_marks(), "usage:marks"),
            (Key::strikes(), "strikes"),
            (
                Key::connections(ChuteId(id), InstanceId(id)),
                "conn:6ba7b812-9dad-11d1-80b4-00c04fd430c8:6ba7b812-9dad-11d1-80b4-00c04fd430c8",
            ),
            (Key::idempotent(&AnswerDigest([0xab; 32])), &format!("idempotent:{}", "ab".repeat(32))),
        ];
        for (key, text) in texts {
            assert_eq!(key.as_str(), text);
        }
    }
}
