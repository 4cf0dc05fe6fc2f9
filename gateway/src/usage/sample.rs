//! Attempts for the tests of this folder.

use chrono::DateTime;
use protocol::ids::{CallId, ChuteId, ImageId, InstanceId, InvocationId, UserId};
use protocol::signing::Hotkey;
use protocol::usage::{Admission, Kind};

/// A streamed attempt.
pub(crate) fn admission() -> Admission {
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
        started_at: DateTime::from_timestamp_micros(1_767_225_600_000_000).unwrap(),
        multiplier: 1.5,
        bucket: None,
        kind: Kind::Stream,
        estimate: 11,
        mean_connections: 0.25,
        steps: 0,
        reroll: false,
    }
}
