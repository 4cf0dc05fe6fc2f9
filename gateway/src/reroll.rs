//! Remembers for a while which prompts were answered, so that a call that asks the same once more is marked.

use std::collections::hash_map::{Entry, RandomState};
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hasher};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use protocol::ids::{ChuteId, UserId};

/// The prompts that this process has answered: a hash of each, under a secret that is drawn at its start and never
/// leaves it, so that nothing about a prompt can be learnt from a hash, nor a hash be compared with another process's.
pub struct Rerolls {
    secret: RandomState,
    most: usize,
    within: Duration,
    table: Mutex<Table>,
}

/// What a user asked of a chute.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Prompt(u64);

#[derive(Default)]
struct Table {
    answered: HashMap<Prompt, Instant>,
    /// Those in the table, the oldest first.
    order: VecDeque<(Instant, Prompt)>,
}

impl Rerolls {
    /// Remembers at most so many prompts, each for some time after its first answer; none at all for 0.
    #[must_use]
    pub fn new(most: usize, within: Duration) -> Self {
        Self { secret: RandomState::new(), most, within, table: Mutex::default() }
    }

    /// What is asked with these texts; none where nothing is.
    #[must_use]
    pub fn prompt<'a>(
        &self,
        user: UserId,
        chute: ChuteId,
        texts: impl IntoIterator<Item = &'a [u8]>,
    ) -> Option<Prompt> {
        let mut hasher = self.secret.build_hasher();
        hasher.write_u128(user.0.as_u128());
        hasher.write_u128(chute.0.as_u128());
        let mut any = false;
        for text in texts {
            any |= !text.is_empty();
            hasher.write_usize(text.len());
            hasher.write(text);
        }
        (any && self.most > 0).then(|| Prompt(hasher.finish()))
    }

    /// Whether this was answered not long ago.
    #[must_use]
    pub fn is_known(&self, prompt: Prompt, now: Instant) -> bool {
        self.table().answered.get(&prompt).is_some_and(|first| now.saturating_duration_since(*first) < self.within)
    }

    /// Notes that this was answered, and forgets what was long ago or is too much.
    pub fn answered(&self, prompt: Prompt, now: Instant) {
        let mut table = self.table();
        while table.order.front().is_some_and(|(first, _)| now.saturating_duration_since(*first) >= self.within) {
            table.forget_oldest();
        }
        if let Entry::Vacant(place) = table.answered.entry(prompt) {
            place.insert(now);
            table.order.push_back((now, prompt));
        }
        while table.order.len() > self.most {
            table.forget_oldest();
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().expect("nothing panics under this lock")
    }
}

impl Table {
    fn forget_oldest(&mut self) {
        if let Some((_, prompt)) = self.order.pop_front() {
            self.answered.remove(&prompt);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WITHIN: Duration = Duration::from_secs(1200);

    fn ids(user: u128, chute: u128) -> (UserId, ChuteId) {
        (UserId(uuid::Uuid::from_u128(user)), ChuteId(uuid::Uuid::from_u128(chute)))
    }

    fn prompt(rerolls: &Rerolls, user: u128, chute: u128, texts: &[&str]) -> Option<Prompt> {
        let (user, chute) = ids(user, chute);
        rerolls.prompt(user, chute, texts.iter().map(|text| text.as_bytes()))
    }

    #[test]
    fn the_same_user_chute_and_texts_are_the_same_prompt_and_nothing_else_is() {
        let rerolls = Rerolls::new(10, WITHIN);
        let asked = prompt(&rerolls, 1, 2, &["ab", "c"]);
        assert!(asked == prompt(&rerolls, 1, 2, &["ab", "c"]));
        for (user, chute, texts) in
            [(9, 2, ["ab", "c"]), (1, 9, ["ab", "c"]), (1, 2, ["ab", "d"]), (1, 2, ["a", "bc"]), (2, 1, ["ab", "c"])]
        {
            assert!(asked != prompt(&rerolls, user, chute, &texts));
        }
    }

    #[test]
    fn what_asks_nothing_is_no_prompt_and_neither_is_anything_without_a_table() {
        assert!(prompt(&Rerolls::new(10, WITHIN), 1, 2, &[]).is_none());
        assert!(prompt(&Rerolls::new(10, WITHIN), 1, 2, &["", ""]).is_none());
        assert!(prompt(&Rerolls::new(0, WITHIN), 1, 2, &["a"]).is_none());
    }

    #[test]
    fn a_prompt_is_known_from_its_answer_until_its_time_is_over() {
        let (rerolls, start) = (Rerolls::new(10, WITHIN), Instant::now());
        let asked = prompt(&rerolls, 1, 2, &["a"]).unwrap();
        assert!(!rerolls.is_known(asked, start));
        rerolls.answered(asked, start);
        rerolls.answered(asked, start + WITHIN / 2);
        assert!(rerolls.is_known(asked, start + WITHIN - Duration::from_secs(1)));
        assert!(!rerolls.is_known(asked, start + WITHIN), "counted from the first answer");
        rerolls.answered(asked, start + WITHIN);
        assert!(rerolls.is_known(asked, start + WITHIN));
        assert_eq!(rerolls.table().order.len(), 1);
    }

    #[test]
    fn the_oldest_makes_room_for_the_newest() {
        let (rerolls, start) = (Rerolls::new(3, WITHIN), Instant::now());
        let asked: Vec<Prompt> = (0..5).map(|user| prompt(&rerolls, user, 2, &["a"]).unwrap()).collect();
        for (number, prompt) in asked.iter().enumerate() {
            rerolls.answered(*prompt, start + Duration::from_secs(number as u64));
        }
        let known: Vec<bool> = asked.iter().map(|prompt| rerolls.is_known(*prompt, start + WITHIN / 2)).collect();
        assert_eq!(known, [false, false, true, true, true]);
        let table = rerolls.table();
        assert_eq!((table.answered.len(), table.order.len()), (3, 3));
    }

    proptest! {
        #[test]
        fn two_tables_share_no_hash(user: u128, chute: u128, text in ".{1,40}") {
            let (one, other) = (Rerolls::new(10, WITHIN), Rerolls::new(10, WITHIN));
            prop_assert!(prompt(&one, user, chute, &[&text]) != prompt(&other, user, chute, &[&text]));
        }

        #[test]
        fn the_table_never_outgrows_its_bound(asked in prop::collection::vec((0..20_u128, 0..300_u64), 0..200)) {
            let (rerolls, mut now) = (Rerolls::new(8, WITHIN), Instant::now());
            for (user, pause) in asked {
                now += Duration::from_secs(pause);
                let asked = prompt(&rerolls, user, 2, &["a"]).unwrap();
                rerolls.answered(asked, now);
                prop_assert!(rerolls.is_known(asked, now));
                let table = rerolls.table();
                prop_assert!(table.order.len() <= 8 && table.answered.len() == table.order.len());
            }
        }
    }
}
