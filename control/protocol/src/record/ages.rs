//! Remembers about when sequences were given out, to say how old the oldest unconfirmed one is.

use std::collections::VecDeque;

use chrono::{DateTime, TimeDelta, Utc};

/// Sequences given out within this time count as of one age, at first.
const FINEST: TimeDelta = TimeDelta::milliseconds(250);

/// Steps kept; when there are more, each becomes twice as long, so that memory is bounded and ages are rounded up.
const KEPT: usize = 4096;

/// When sequences were given out, oldest first.
#[derive(Debug)]
pub(super) struct Ages {
    steps: VecDeque<Step>,
    length: TimeDelta,
}

/// Sequences up to the highest, and above those of the step before it, are of this age.
#[derive(Clone, Copy, Debug)]
struct Step {
    highest: u64,
    since: DateTime<Utc>,
}

impl Default for Ages {
    fn default() -> Self {
        Self { steps: VecDeque::new(), length: FINEST }
    }
}

impl Ages {
    /// A sequence was given out; they ascend.
    pub(super) fn note(&mut self, sequence: u64, at: DateTime<Utc>) {
        match self.steps.back_mut() {
            Some(last) if sequence <= last.highest => {}
            Some(last) if at - last.since < self.length => last.highest = sequence,
            Some(_) | None if sequence == 0 => {}
            Some(_) | None => {
                self.steps.push_back(Step { highest: sequence, since: at });
                if self.steps.len() > KEPT {
                    self.join();
                }
            }
        }
    }

    /// When the oldest sequence above this one was given out; what is not above it is forgotten.
    pub(super) fn oldest_above(&mut self, mark: u64) -> Option<DateTime<Utc>> {
        while self.steps.front().is_some_and(|step| step.highest <= mark) {
            self.steps.pop_front();
        }
        if self.steps.is_empty() {
            self.length = FINEST;
        }
        self.steps.front().map(|step| step.since)
    }

    fn join(&mut self) {
        self.length = self.length * 2;
        let steps = std::mem::take(&mut self.steps);
        let mut steps = steps.into_iter();
        while let Some(first) = steps.next() {
            let highest = steps.next().map_or(first.highest, |second| second.highest);
            self.steps.push_back(Step { highest, since: first.since });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_760_000_000 + seconds, 0).unwrap()
    }

    #[test]
    fn the_oldest_sequence_above_the_mark_has_its_age() {
        let mut ages = Ages::default();
        assert_eq!(ages.oldest_above(0), None);
        for sequence in 1..=10 {
            ages.note(sequence, at(sequence.cast_signed()));
        }
        assert_eq!(ages.oldest_above(0), Some(at(1)));
        assert_eq!(ages.oldest_above(4), Some(at(5)));
        assert_eq!(ages.oldest_above(10), None);
        ages.note(11, at(40));
        assert_eq!(ages.oldest_above(10), Some(at(40)));
    }

    #[test]
    fn sequences_of_one_moment_are_one_step() {
        let mut ages = Ages::default();
        (1..=1000).for_each(|sequence| ages.note(sequence, at(0)));
        assert_eq!(ages.steps.len(), 1);
        assert_eq!(ages.oldest_above(999), Some(at(0)));
    }

    #[test]
    fn what_is_no_final_has_no_age() {
        let mut ages = Ages::default();
        ages.note(0, at(0));
        assert_eq!(ages.oldest_above(0), None);
    }

    #[test]
    fn an_older_sequence_or_none_changes_no_age() {
        let mut ages = Ages::default();
        ages.note(5, at(0));
        for sequence in [0, 3, 5] {
            ages.note(sequence, at(0));
            ages.note(sequence, at(9));
            assert_eq!((ages.oldest_above(4), ages.steps.len()), (Some(at(0)), 1), "after {sequence}");
        }
    }

    #[test]
    fn a_step_is_a_quarter_of_a_second_long() {
        let mut ages = Ages::default();
        ages.note(1, at(0));
        ages.note(2, at(0) + TimeDelta::milliseconds(249));
        ages.note(3, at(0) + TimeDelta::milliseconds(250));
        assert_eq!(ages.oldest_above(1), Some(at(0)));
        assert_eq!(ages.oldest_above(2), Some(at(0) + TimeDelta::milliseconds(250)));
    }

    #[test]
    fn more_steps_than_are_kept_become_half_as_many_of_twice_the_length() {
        let mut ages = Ages::default();
        for sequence in 1..=KEPT as u64 {
            ages.note(sequence, at(sequence.cast_signed()));
        }
        assert_eq!((ages.steps.len(), ages.length), (KEPT, FINEST));
        ages.note(KEPT as u64 + 1, at(KEPT as i64 + 1));
        assert_eq!((ages.steps.len(), ages.length), (KEPT / 2 + 1, FINEST * 2));
    }

    #[test]
    fn a_long_outage_takes_bounded_memory_and_the_oldest_stays_as_old_as_it_is() {
        let mut ages = Ages::default();
        for sequence in 1..=1_000_000_u64 {
            ages.note(sequence, at(sequence.cast_signed()));
        }
        assert!(ages.steps.len() <= KEPT);
        assert_eq!(ages.oldest_above(0), Some(at(1)));
        let rounded = ages.oldest_above(500_000).unwrap();
        assert!(rounded <= at(500_001) && rounded > at(499_000), "{rounded}");
        assert_eq!(ages.oldest_above(1_000_000), None);
        ages.note(1_000_001, at(1_000_001));
        ages.note(1_000_002, at(1_000_002));
        assert_eq!(ages.oldest_above(1_000_001), Some(at(1_000_002)));
    }
}
