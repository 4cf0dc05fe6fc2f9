//! Counts calls per minute.
//!
//! A sliding window in steps of a second. Guarantee: in no span of 60 s, wherever it begins, are more calls counted
//! than the limit that was tested before each. A call frees its place 60 to 61 s later, at the turn of a second. An
//! idle caller has the whole limit at once; it does not come back faster than it was used.

use std::collections::VecDeque;

use crate::refusal::Standing;

/// Whole seconds that the window reaches back. The oldest second is only in part within the last 60 s and counts whole.
const REACH: i64 = 60;

/// Calls of the last minute, by the second.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// Seconds with calls, ascending, with their number.
    seconds: VecDeque<(i64, u32)>,
    total: u32,
}

impl Window {
    /// Calls in the window that ends now.
    pub(super) fn used(&mut self, second: i64) -> u32 {
        while let Some((oldest, calls)) = self.seconds.front().copied()
            && oldest < second.saturating_sub(REACH)
        {
            self.total -= calls;
            self.seconds.pop_front();
        }
        self.total
    }

    /// Counts a call.
    pub(super) fn count(&mut self, second: i64) {
        self.total = self.total.saturating_add(1);
        match self.seconds.back_mut() {
            // A clock that was set back goes on in the last second it had reached.
            Some((last, calls)) if *last >= second => *calls = calls.saturating_add(1),
            Some(_) | None => self.seconds.push_back((second, 1)),
        }
    }

    /// Where the limit stands; `reset` is when the next place comes free, 0 when none is taken.
    pub(super) fn standing(&self, limit: u32, second: i64) -> Standing {
        let mut left = self.total;
        let mut reset = 0;
        for (at, calls) in &self.seconds {
            left -= calls;
            reset = at.saturating_add(REACH + 1).saturating_sub(second);
            if left < limit {
                break;
            }
        }
        Standing { limit, remaining: limit.saturating_sub(self.total), reset: u64::try_from(reset).unwrap_or(0) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Offers calls at these milliseconds; gives those that were let in.
    fn let_in(limit: u32, offered: &[i64]) -> Vec<i64> {
        let mut window = Window::default();
        let mut passed = Vec::new();
        for at in offered {
            let second = at.div_euclid(1000);
            if window.used(second) < limit {
                window.count(second);
                passed.push(*at);
            }
        }
        passed
    }

    proptest! {
        #[test]
        fn no_span_of_a_minute_holds_more_calls_than_the_limit(
            limit in 0_u32..20,
            gaps in prop::collection::vec(0_i64..9_000, 0..300),
        ) {
            let offered: Vec<i64> = gaps.iter().scan(0, |at, gap| { *at += gap; Some(*at) }).collect();
            let passed = let_in(limit, &offered);
            for (first, start) in passed.iter().enumerate() {
                let within = passed[first..].iter().take_while(|at| **at <= start + 60_000).count();
                prop_assert!(within <= limit as usize, "{within} calls from {start} ms on");
            }
        }

        #[test]
        fn a_refused_caller_is_let_in_after_the_time_it_was_told(
            limit in 1_u32..10,
            gaps in prop::collection::vec(0_i64..4, 1..100),
        ) {
            let mut window = Window::default();
            let mut second = 0;
            for gap in gaps {
                second += gap;
                if window.used(second) < limit {
                    window.count(second);
                } else {
                    let wait = i64::try_from(window.standing(limit, second).reset).unwrap();
                    prop_assert!((1..=61).contains(&wait));
                    prop_assert!(window.used(second + wait - 1) >= limit);
                    prop_assert!(window.used(second + wait) < limit);
                    second += wait;
                    window.count(second);
                }
            }
        }
    }

    #[test]
    fn the_whole_limit_is_free_again_after_a_quiet_minute() {
        let burst: Vec<i64> = vec![5_500; 600].into_iter().chain(vec![66_000; 600]).collect();
        assert_eq!(let_in(600, &burst).len(), 1200);
        let too_early: Vec<i64> = vec![5_500; 600].into_iter().chain(vec![65_400; 600]).collect();
        assert_eq!(let_in(600, &too_early).len(), 600);
    }

    #[test]
    fn a_clock_set_back_frees_nothing() {
        let mut window = Window::default();
        window.count(100);
        window.count(50);
        assert_eq!(window.used(40), 2);
        assert_eq!(window.used(160), 2);
        assert_eq!(window.used(161), 0);
    }

    #[test]
    fn standing_tells_what_is_left_and_when_the_next_place_is_free() {
        let mut window = Window::default();
        assert_eq!(window.standing(2, 0), Standing { limit: 2, remaining: 2, reset: 0 });
        window.count(10);
        assert_eq!(window.standing(2, 20), Standing { limit: 2, remaining: 1, reset: 51 });
        window.count(15);
        assert_eq!(window.standing(2, 20), Standing { limit: 2, remaining: 0, reset: 51 });
        assert_eq!(window.standing(1, 20), Standing { limit: 1, remaining: 0, reset: 56 });
    }
}
