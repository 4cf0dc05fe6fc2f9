//! Whether a miss in Redis means that there is no such principal.

use std::sync::Mutex;

use protocol::principal::Complete;

/// Judges the marker of completeness against the last one that was believed.
#[derive(Default)]
pub(super) struct Completeness {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    believed: Option<Complete>,
    refused: Option<Complete>,
}

/// What a marker is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Every principal is there.
    Complete,
    /// Nothing says so.
    Incomplete,
    /// Something says so, but the set is suspiciously small.
    Refused {
        /// Whether this very marker is refused for the first time in a row.
        anew: bool,
    },
}

impl Completeness {
    pub(super) fn judge(&self, marker: Option<Complete>) -> Verdict {
        let Some(marker) = marker else { return Verdict::Incomplete };
        let mut state = self.state.lock().expect("nothing panics under this lock");
        if state.believed.as_ref().is_some_and(|believed| !marker.may_replace(believed)) {
            let anew = state.refused.as_ref() != Some(&marker);
            state.refused = Some(marker);
            return Verdict::Refused { anew };
        }
        state.believed = Some(marker);
        state.refused = None;
        Verdict::Complete
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marker(users: u64, keys: u64, forced: bool) -> Option<Complete> {
        Some(Complete { users, keys, forced })
    }

    #[test]
    fn a_halved_or_empty_set_is_refused_until_forced_or_grown_again() {
        let completeness = Completeness::default();
        assert_eq!(completeness.judge(None), Verdict::Incomplete);
        assert_eq!(completeness.judge(marker(10, 20, false)), Verdict::Complete);
        assert_eq!(completeness.judge(marker(10, 9, false)), Verdict::Refused { anew: true });
        assert_eq!(completeness.judge(marker(10, 9, false)), Verdict::Refused { anew: false });
        assert_eq!(completeness.judge(marker(0, 0, false)), Verdict::Refused { anew: true });
        assert_eq!(completeness.judge(marker(10, 10, false)), Verdict::Complete);
        assert_eq!(completeness.judge(marker(0, 0, true)), Verdict::Complete);
    }
}
