//! Attempts for the tests of this floor.

use chrono::{DateTime, TimeDelta, Utc};
use protocol::ids::{ApiKeyId, CallId, ChuteId, ImageId, InstanceId, InvocationId, UserId};
use protocol::principal::Bucket;
use protocol::signing::Hotkey;
use protocol::usage::{Admission, Facts, Kind, Outcome, Record};
use uuid::Uuid;

/// A time so many seconds after 2026-01-02T03:00:00Z.
pub(crate) fn at(seconds: f64) -> DateTime<Utc> {
    let start: DateTime<Utc> = "2026-01-02T03:00:00Z".parse().unwrap();
    start + TimeDelta::microseconds((seconds * 1e6) as i64)
}

/// A finished attempt of this kind that ends so many seconds after the start of the tests' hour.
pub(crate) fn record(kind: Kind, end: f64, facts: Facts) -> Record {
    let id = |n: u128| Uuid::from_u128(n);
    Record {
        admission: Admission {
            call: CallId(id(1)),
            invocation: InvocationId(id(2)),
            chute: ChuteId(id(3)),
            chute_owner: UserId(id(4)),
            function: "chat_stream".into(),
            image: ImageId(id(5)),
            image_owner: UserId(id(6)),
            user: UserId(id(7)),
            key: Some(ApiKeyId(id(8))),
            instance: InstanceId(id(9)),
            miner_uid: 7,
            hotkey: Hotkey::parse("5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY").unwrap(),
            started_at: at(end - facts.tt),
            multiplier: 1.5,
            bucket: Some(Bucket::Default),
            bucket_day: None,
            kind,
            estimate: 11,
            mean_connections: 0.25,
            steps: 20,
            reroll: false,
        },
        outcome: Outcome::Finished,
        completed_at: at(end),
        error: None,
        delivered: true,
        facts,
    }
}
