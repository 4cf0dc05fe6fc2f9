//! Bounds what answers take, while they are recorded here and while they rest in Redis.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use protocol::ids::UserId;

/// One user may take this part of the room, so that nobody can take it from all others.
const PART: usize = 8;

/// The bytes that the answers of this gateway may take.
pub struct Room {
    total: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    used: usize,
    users: HashMap<UserId, usize>,
    /// When parts of it become free, the soonest first.
    resting: VecDeque<(Instant, UserId, usize)>,
}

/// What a user has of the room; given back when dropped.
pub struct Share {
    room: Arc<Room>,
    user: UserId,
    bytes: usize,
}

impl Room {
    /// Room for so many bytes.
    #[must_use]
    pub fn new(total: usize) -> Arc<Self> {
        Arc::new(Self { total, state: Mutex::default() })
    }

    /// Takes some of it for a user, if there is as much for him.
    #[must_use]
    pub fn take(self: &Arc<Self>, user: UserId, bytes: usize, now: Instant) -> Option<Share> {
        let mut share = Share { room: Arc::clone(self), user, bytes: 0 };
        share.grow(bytes, now).then_some(share)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics under this lock")
    }
}

impl Share {
    /// Takes more, if there is as much for its user.
    #[must_use]
    pub fn grow(&mut self, bytes: usize, now: Instant) -> bool {
        let mut state = self.room.state();
        while let Some((_, user, rested)) = state.resting.pop_front_if(|(until, ..)| *until <= now) {
            state.give(user, rested);
        }
        let held = state.users.get(&self.user).copied().unwrap_or(0);
        if self.room.total - state.used < bytes || self.room.total / PART < held.saturating_add(bytes) {
            return false;
        }
        if bytes > 0 {
            state.used += bytes;
            state.users.insert(self.user, held + bytes);
            self.bytes += bytes;
        }
        true
    }

    /// Leaves it taken until then. All shares rest for the same time.
    pub fn rest(mut self, until: Instant) {
        let bytes = std::mem::take(&mut self.bytes);
        self.room.state().resting.push_back((until, self.user, bytes));
    }
}

impl State {
    fn give(&mut self, user: UserId, bytes: usize) {
        self.used -= bytes;
        if let Some(held) = self.users.get_mut(&user) {
            *held -= bytes;
            if *held == 0 {
                self.users.remove(&user);
            }
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.room.state().give(self.user, self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn user(number: u128) -> UserId {
        UserId(uuid::Uuid::from_u128(number))
    }

    #[test]
    fn no_more_is_taken_than_there_is_and_what_is_dropped_is_free() {
        let (room, now) = (Room::new(80), Instant::now());
        let mut one = room.take(user(1), 6, now).unwrap();
        assert!(room.take(user(1), 5, now).is_none(), "a user has an eighth");
        assert!(one.grow(4, now) && !one.grow(1, now));
        let others: Vec<Share> = (2..9).map(|number| room.take(user(number), 10, now).unwrap()).collect();
        assert!(room.take(user(9), 1, now).is_none(), "all is taken");
        drop(one);
        assert!(room.take(user(1), 10, now).is_some());
        drop(others);
        assert!(room.state().users.is_empty() && room.state().used == 0);
    }

    #[test]
    fn what_rests_is_free_when_its_time_is_over() {
        let (room, now) = (Room::new(80), Instant::now());
        let later = now + Duration::from_secs(600);
        room.take(user(1), 6, now).unwrap().rest(later);
        room.take(user(1), 4, now).unwrap().rest(later + Duration::from_secs(1));
        assert!(room.take(user(1), 1, later - Duration::from_secs(1)).is_none());
        assert!(room.take(user(1), 7, later).is_none());
        assert!(room.take(user(1), 6, later).is_some());
        assert!(room.take(user(1), 10, later + Duration::from_secs(1)).is_some());
    }

    proptest! {
        #[test]
        fn the_room_is_never_overfull_and_empty_in_the_end(
            steps in prop::collection::vec((0..5_u128, 0..30_usize, any::<bool>(), 0..100_u64), 0..100),
        ) {
            let (room, mut now) = (Room::new(100), Instant::now());
            let mut held = Vec::new();
            for (number, bytes, rests, pause) in steps {
                now += Duration::from_secs(pause);
                match room.take(user(number), bytes, now) {
                    Some(share) if rests => share.rest(now + Duration::from_secs(300)),
                    Some(share) => held.push(share),
                    None => drop(held.pop()),
                }
                let state = room.state();
                prop_assert!(state.used <= 100 && state.users.values().all(|used| (1..=12).contains(used)));
                prop_assert_eq!(state.used, state.users.values().sum::<usize>());
            }
            held.clear();
            drop(room.take(user(9), 0, now + Duration::from_secs(300)));
            prop_assert!(room.state().users.is_empty() && room.state().used == 0);
        }
    }
}
