//! Attempts for the tests of this folder.

use chrono::{DateTime, TimeDelta};

use crate::ids::{CallId, ChuteId, ImageId, InstanceId, InvocationId, UserId};
use crate::signing::Hotkey;
use crate::usage::{Admission, Facts, Kind, Outcome, Record};

/// A streamed attempt that starts `second` seconds after 2026-01-01T00:00:00Z.
pub(crate) fn admission(second: i64) -> Admission {
    Admission {
        call: CallId::random(),
        invocation: InvocationId::random(),
        chute: ChuteId::random(),
        chute_owner: UserId::random(),
        function: "chat_stream".into(),
        image: ImageId::random(),
        image_owner: UserId::random(),
        user: UserId::random(),
        key: None,
        instance: InstanceId::random(),
        miner_uid: 7,
        hotkey: Hotkey::parse("5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY").unwrap(),
        started_at: DateTime::from_timestamp_micros(1_767_225_600_000_000).unwrap() + TimeDelta::seconds(second),
        multiplier: 1.5,
        bucket: None,
        bucket_day: None,
        kind: Kind::Stream,
        estimate: 11,
        mean_connections: 0.25,
        steps: 0,
        reroll: false,
    }
}

/// The finished record of an attempt.
pub(crate) fn record(admission: Admission) -> Record {
    Record {
        outcome: Outcome::Finished,
        completed_at: admission.started_at + TimeDelta::seconds(1),
        error: None,
        delivered: true,
        facts: Facts { it: 11, ot: 5, tokens: 5, ttft: Some(0.25), tt: 1.0 },
        admission,
    }
}
