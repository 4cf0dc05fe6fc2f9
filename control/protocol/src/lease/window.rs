//! Counts calls per minute.
//!
//! A sliding window in steps of a second. A call frees its place 60 to 61 s later, at the turn of a second. An idle
//! caller has the whole limit at once; it does not come back faster than it was used.

use std::collections::VecDeque;
use std::time::Duration;

/// Whole seconds that the window reaches back. The oldest second is only in part within the last 60 s and counts whole.
const REACH: u64 = 60;

/// Calls of the last minute, by the second.
#[derive(Clone, Debug, Default)]
pub(super) struct Window {
    /// Seconds with calls, ascending, with their number.
    seconds: VecDeque<(u64, u64)>,
    total: u64,
}

impl Window {
    /// Calls in the window as it was last seen.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// Lets the window end now; how many calls left it.
    pub(super) fn age(&mut self, now: Duration) -> u64 {
        let before = self.total;
        while let Some((oldest, calls)) = self.seconds.front().copied()
            && oldest < now.as_secs().saturating_sub(REACH)
        {
            self.total -= calls;
            self.seconds.pop_front();
        }
        before - self.total
    }

    /// Counts a call.
    pub(super) fn count(&mut self, now: Duration) {
        self.total += 1;
        match self.seconds.back_mut() {
            Some((last, calls)) if *last >= now.as_secs() => *calls += 1,
            Some(_) | None => self.seconds.push_back((now.as_secs(), 1)),
        }
    }

    /// When the window will have become so small; none if it is empty.
    pub(super) fn shrinks_below(&self, calls: u64) -> Option<Duration> {
        let mut left = self.total;
        let mut at = None;
        for (second, number) in &self.seconds {
            left -= number;
            at = Some(Duration::from_secs(second + REACH + 1));
            if left < calls {
                break;
            }
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Offers calls at these milliseconds; gives those that were let in.
    fn let_in(limit: u64, offered: &[u64]) -> Vec<u64> {
        let mut window = Window::default();
        let mut passed = Vec::new();
        for at in offered {
            let now = Duration::from_millis(*at);
            window.age(now);
            if window.total() < limit {
                window.count(now);
                passed.push(*at);
            }
        }
        passed
    }

    proptest! {
        #[test]
        fn no_span_of_a_minute_holds_more_calls_than_the_limit(
            limit in 0_u64..20,
            gaps in prop::collection::vec(0_u64..9_000, 0..300),
        ) {
            let offered: Vec<u64> = gaps.iter().scan(0, |at, gap| { *at += gap; Some(*at) }).collect();
            let passed = let_in(limit, &offered);
            for (first, start) in passed.iter().enumerate() {
                let within = passed[first..].iter().take_while(|at| **at <= start + 60_000).count() as u64;
                prop_assert!(within <= limit, "{within} calls from {start} ms on");
            }
        }

        #[test]
        fn a_refused_caller_is_let_in_after_the_time_it_was_told(
            limit in 1_u64..10,
            gaps in prop::collection::vec(0_u64..4, 1..100),
        ) {
            let mut window = Window::default();
            let mut now = Duration::ZERO;
            for gap in gaps {
                now += Duration::from_secs(gap);
                window.age(now);
                if window.total() >= limit {
                    let free = window.shrinks_below(limit).unwrap();
                    prop_assert!(free > now && free <= now + Duration::from_secs(61));
                    window.age(free - Duration::from_millis(1));
                    prop_assert!(window.total() >= limit);
                    window.age(free);
                    prop_assert!(window.total() < limit);
                    now = free;
                }
                window.count(now);
            }
        }
    }

    #[test]
    fn the_whole_limit_is_free_again_after_a_quiet_minute() {
        let burst: Vec<u64> = vec![5_500; 600].into_iter().chain(vec![66_000; 600]).collect();
        assert_eq!(let_in(600, &burst).len(), 1200);
        let too_early: Vec<u64> = vec![5_500; 600].into_iter().chain(vec![65_400; 600]).collect();
        assert_eq!(let_in(600, &too_early).len(), 600);
    }

    #[test]
    fn it_tells_when_the_next_place_is_free() {
        let at = |second| Some(Duration::from_secs(second));
        let mut window = Window::default();
        assert_eq!(window.shrinks_below(2), None);
        window.count(Duration::from_secs(10));
        assert_eq!(window.shrinks_below(2), at(71));
        window.count(Duration::from_secs(15));
        assert_eq!(window.shrinks_below(2), at(71));
        assert_eq!(window.shrinks_below(1), at(76));
    }
}
