//! Each Redis key, stream and channel, with a line saying who writes and who reads it.

use std::fmt;

use chrono::NaiveDate;

use crate::ids::{ApiKeyId, ChuteId, InstanceId, UserId, WriterId};
use crate::principal::Bucket;
use crate::sealing::AnswerDigest;
use crate::signing::{Hotkey, SignatureDigest};

/// A Redis name; only the constructors here make one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key(String);

/// Prefixes of the keys by which gateways share limits and tell their load.
pub const LEASE_PREFIXES: [&str; 2] = ["lease:", "load:"];

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

    /// When each gateway was last heard, in milliseconds of Redis's clock: sorted set. Written and read by gateways.
    #[must_use]
    pub fn lease_beats() -> Self {
        Self("lease:beats".into())
    }

    /// Since when a run of Redis has been told what gateways hold, in milliseconds of its clock: string with a time to
    /// live. Another run may have lost some of it. Written and read by gateways.
    #[must_use]
    pub fn lease_since(run: &str) -> Self {
        Self(format!("lease:since:{run}"))
    }

    /// Claims on a user's calls per minute, on one chute or on all (`lease::script`): hash with a time to live.
    /// Written and read by gateways.
    #[must_use]
    pub fn rate_lease(user: UserId, chute: Option<ChuteId>) -> Self {
        Self(format!("lease:rate:{user}{}", of_chute(chute)))
    }

    /// Claims on a user's calls at once, on one chute or on all: hash with a time to live. Written and read by gateways.
    #[must_use]
    pub fn at_once_lease(user: UserId, chute: Option<ChuteId>) -> Self {
        Self(format!("lease:at-once:{user}{}", of_chute(chute)))
    }

    /// Claims on a daily allowance: hash with a time to live. Written and read by gateways.
    #[must_use]
    pub fn quota_lease(user: UserId, bucket: Bucket, day: NaiveDate) -> Self {
        Self(format!("lease:quota:{day}:{user}:{bucket}"))
    }

    /// Claims on places on one instance: hash with a time to live. Written and read by gateways.
    #[must_use]
    pub fn instance_lease(instance: InstanceId) -> Self {
        Self(format!("lease:instance:{instance}"))
    }

    /// What one gateway has to do (`load::Load`): string with a time to live. Written by that gateway, read by gateways
    /// and the autoscaler, which find the gateways in [`Key::lease_beats`].
    #[must_use]
    pub fn load(gateway: WriterId) -> Self {
        Self(format!("load:{gateway}"))
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

/// What stands behind a user where a limit is for one chute.
fn of_chute(chute: Option<ChuteId>) -> String {
    chute.map(|chute| format!(":{chute}")).unwrap_or_default()
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
        let (other, day) = (uuid::Uuid::nil(), NaiveDate::from_ymd_opt(2026, 1, 31).unwrap());
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
            (Key::lease_beats(), "lease:beats"),
            (Key::lease_since("1f"), "lease:since:1f"),
            (Key::rate_lease(UserId(id), None), "lease:rate:6ba7b812-9dad-11d1-80b4-00c04fd430c8"),
            (
                Key::at_once_lease(UserId(id), Some(ChuteId(other))),
                "lease:at-once:6ba7b812-9dad-11d1-80b4-00c04fd430c8:00000000-0000-0000-0000-000000000000",
            ),
            (
                Key::quota_lease(UserId(id), Bucket::Default, day),
                "lease:quota:2026-01-31:6ba7b812-9dad-11d1-80b4-00c04fd430c8:*",
            ),
            (Key::instance_lease(InstanceId(id)), "lease:instance:6ba7b812-9dad-11d1-80b4-00c04fd430c8"),
            (Key::load(WriterId(id)), "load:6ba7b812-9dad-11d1-80b4-00c04fd430c8"),
            (Key::idempotent(&AnswerDigest([0xab; 32])), &format!("idempotent:{}", "ab".repeat(32))),
        ];
        for (key, text) in texts {
            assert_eq!(key.as_str(), text);
        }
    }
}
