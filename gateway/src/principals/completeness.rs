//! Whether a miss in Redis means that there is no such principal.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use protocol::principal::{Complete, Versioned};

/// Readings that were under way together may be judged in another order than they were made.
const OUT_OF_ORDER_FOR: Duration = Duration::from_secs(5);

/// Judges the marker of completeness against the last one that was believed.
#[derive(Default)]
pub(super) struct Completeness {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    believed: Option<(Versioned<Complete>, Instant)>,
    /// What was believed before an older one was forced.
    displaced: Option<Versioned<Complete>>,
    refused: Option<Versioned<Complete>>,
}

/// What a marker is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Every principal is there.
    Complete,
    /// Nothing says so.
    Incomplete,
    /// Something says so, but the set is older than the last good one or has lost more than half.
    Refused {
        /// Whether this very marker is refused for the first time in a row.
        anew: bool,
    },
}

impl Completeness {
    pub(super) fn judge(&self, marker: Option<&Versioned<Complete>>, now: Instant) -> Verdict {
        let Some(marker) = marker else { return Verdict::Incomplete };
        let mut state = self.state.lock().expect("nothing panics under this lock");
        if let Some((believed, believed_at)) = &state.believed {
            let is_older = marker.version < believed.version;
            let is_displaced = state.displaced.as_ref() == Some(marker);
            if (is_older || is_displaced) && now.saturating_duration_since(*believed_at) < OUT_OF_ORDER_FOR {
                return Verdict::Incomplete;
            }
            // A forced one may be older; it is stated for longer than readings overlap.
            if (is_older && !marker.entry.forced) || !marker.entry.may_replace(&believed.entry) {
                let anew = state.refused.as_ref() != Some(marker);
                state.refused = Some(marker.clone());
                return Verdict::Refused { anew };
            }
        }
        if state.believed.as_ref().is_none_or(|(believed, _)| believed != marker) {
            let before = state.believed.replace((marker.clone(), now));
            state.displaced = before.map(|(before, _)| before).filter(|before| before.version > marker.version);
        }
        state.refused = None;
        Verdict::Complete
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marker(version: u64, users: u64, keys: u64, forced: bool) -> Versioned<Complete> {
        Versioned { version, entry: Complete { users, keys, forced } }
    }

    #[test]
    fn a_halved_or_empty_set_is_refused_until_forced_or_grown_again() {
        let completeness = Completeness::default();
        let judge = |marker| completeness.judge(Some(&marker), Instant::now());
        assert_eq!(completeness.judge(None, Instant::now()), Verdict::Incomplete);
        assert_eq!(judge(marker(1, 10, 20, false)), Verdict::Complete);
        assert_eq!(judge(marker(2, 10, 9, false)), Verdict::Refused { anew: true });
        assert_eq!(judge(marker(2, 10, 9, false)), Verdict::Refused { anew: false });
        assert_eq!(judge(marker(3, 0, 0, false)), Verdict::Refused { anew: true });
        assert_eq!(judge(marker(4, 10, 10, false)), Verdict::Complete);
        assert_eq!(judge(marker(5, 0, 0, true)), Verdict::Complete);
    }

    #[test]
    fn an_older_set_is_refused_unless_two_readings_only_overlapped() {
        let completeness = Completeness::default();
        let (older, newer) = (marker(1, 10, 10, false), marker(2, 10, 10, false));
        let now = Instant::now();
        assert_eq!(completeness.judge(Some(&newer), now), Verdict::Complete);
        assert_eq!(completeness.judge(Some(&older), now), Verdict::Incomplete);
        let later = now + OUT_OF_ORDER_FOR;
        assert_eq!(completeness.judge(Some(&newer), later), Verdict::Complete);
        assert_eq!(completeness.judge(Some(&older), later), Verdict::Refused { anew: true });
    }

    #[test]
    fn an_older_set_that_is_forced_is_the_reference_from_then_on() {
        let completeness = Completeness::default();
        let start = Instant::now();
        let judge = |marker, seconds| completeness.judge(Some(&marker), start + Duration::from_secs(seconds));
        let newer = marker(100, 10, 10, false);
        assert_eq!(judge(newer.clone(), 0), Verdict::Complete);
        assert_eq!(judge(marker(7, 1, 1, true), 10), Verdict::Complete);
        assert_eq!(judge(newer, 11), Verdict::Incomplete, "a reading that was under way changes nothing");
        assert_eq!(judge(marker(7, 1, 1, true), 12), Verdict::Complete);
        assert_eq!(judge(marker(8, 1, 1, false), 70), Verdict::Complete);
        assert_eq!(judge(marker(7, 1, 1, false), 80), Verdict::Refused { anew: true });
        assert_eq!(judge(marker(8, 1, 1, false), 81), Verdict::Complete);
    }
}
