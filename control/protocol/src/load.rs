//! What each gateway has to do at the moment, as it tells the others and the autoscaler.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{ChuteId, InstanceId};

/// One gateway's load, as JSON in [`crate::keys::Key::load`]. Counters begin at the start of the process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// By chute; only those that were called.
    pub chutes: BTreeMap<ChuteId, ChuteLoad>,
}

/// One chute's load.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChuteLoad {
    /// Attempts that ended.
    pub completed: u64,
    /// Calls turned away because every instance was full.
    pub limited: u64,
    /// Attempts in flight by instance; only those with any.
    pub in_flight: BTreeMap<InstanceId, u32>,
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_load_has_its_literal_text() {
        let in_flight = [(InstanceId(Uuid::from_u128(2)), 3)].into();
        let chutes = [(ChuteId(Uuid::from_u128(1)), ChuteLoad { completed: 4, limited: 5, in_flight })].into();
        let text = r#"{"chutes":{"00000000-0000-0000-0000-000000000001":{"completed":4,"limited":5,"in_flight":{"00000000-0000-0000-0000-000000000002":3}}}}"#;
        let load = Load { chutes };
        assert_eq!(serde_json::to_string(&load).unwrap(), text);
        assert_eq!(serde_json::from_str::<Load>(text).unwrap(), load);
    }
}
