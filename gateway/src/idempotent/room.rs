//! Bounds what answers take: while they are recorded here, while they rest in Redis, while they are given again.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use protocol::ids::UserId;
use tokio::sync::Notify;
use tokio::time::timeout_at;

/// One user may take this part of the room, so that nobody can take it from all others.
const PART: usize = 8;

/// Whose room is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// What this user may take.
    User,
    /// All there is.
    All,
}

/// There is no room, and when there will be some.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    /// Whose room it is.
    pub whose: Owner,
    /// When some of it becomes free; none if it is all in use by calls that still run.
    pub free_in: Option<Duration>,
}

/// The bytes that answers of this gateway may take.
pub struct Room {
    total: usize,
    state: Mutex<State>,
    /// Tells whoever waits that something was given back.
    freed: Notify,
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
        Arc::new(Self { total, state: Mutex::default(), freed: Notify::new() })
    }

    /// Takes some of it for a user, if there is as much for him.
    ///
    /// # Errors
    /// When there is not.
    pub fn take(self: &Arc<Self>, user: UserId, bytes: usize, now: Instant) -> Result<Share, Full> {
        let mut share = Share { room: Arc::clone(self), user, bytes: 0 };
        if share.grow(bytes, now) { Ok(share) } else { Err(self.full(user, bytes, now)) }
    }

    /// Takes some of it for a user, and waits for that if need be. The part of one user has room for any length.
    ///
    /// # Errors
    /// When there is not as much in time.
    pub async fn wait(self: &Arc<Self>, user: UserId, bytes: usize, patience: Duration) -> Result<Share, Full> {
        let (bytes, until) = (bytes.min(self.total / PART), tokio::time::Instant::now() + patience);
        loop {
            // Before the look, so that nothing is given back unnoticed in between.
            let freed = self.freed.notified();
            let full = match self.take(user, bytes, Instant::now()) {
                Ok(share) => return Ok(share),
                Err(full) => full,
            };
            timeout_at(until, freed).await.map_err(|_| full)?;
        }
    }

    fn full(&self, user: UserId, bytes: usize, now: Instant) -> Full {
        let state = self.state();
        let whose = if self.total / PART < state.held(user).saturating_add(bytes) { Owner::User } else { Owner::All };
        let frees = |rests: &&(Instant, UserId, usize)| whose == Owner::All || rests.1 == user;
        let first = state.resting.iter().find(frees);
        Full { whose, free_in: first.map(|(until, ..)| until.saturating_duration_since(now)) }
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
        let held = state.held(self.user);
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
    fn held(&self, user: UserId) -> usize {
        self.users.get(&user).copied().unwrap_or(0)
    }

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
        // An empty one is dropped by whoever looked in vain, who must not wake himself.
        if self.bytes > 0 {
            self.room.state().give(self.user, self.bytes);
            self.room.freed.notify_waiters();
        }
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
        let full = |whose| Some(Full { whose, free_in: None });
        assert_eq!(room.take(user(1), 5, now).err(), full(Owner::User), "a user has an eighth");
        assert!(one.grow(4, now) && !one.grow(1, now));
        let others: Vec<Share> = (2..9).map(|number| room.take(user(number), 10, now).unwrap()).collect();
        assert_eq!(room.take(user(9), 1, now).err(), full(Owner::All));
        drop(one);
        assert!(room.take(user(1), 10, now).is_ok());
        drop(others);
        assert!(room.state().users.is_empty() && room.state().used == 0);
    }

    #[test]
    fn what_rests_is_free_when_its_time_is_over() {
        let (room, now) = (Room::new(80), Instant::now());
        let later = now + Duration::from_secs(600);
        room.take(user(1), 6, now).unwrap().rest(later);
        room.take(user(1), 4, now).unwrap().rest(later + Duration::from_secs(1));
        let second = Duration::from_secs(1);
        let full = |whose, free_in| Some(Full { whose, free_in: Some(free_in) });
        assert_eq!(room.take(user(1), 1, later - second).err(), full(Owner::User, second));
        assert_eq!(room.take(user(1), 7, later).err(), full(Owner::User, second));
        assert!(room.take(user(1), 6, later).is_ok());
        assert!(room.take(user(1), 10, later + second).is_ok());
    }

    #[test]
    fn who_finds_no_room_hears_when_some_of_his_own_or_of_all_becomes_free() {
        let (room, now, second) = (Room::new(80), Instant::now(), Duration::from_secs(1));
        for (number, seconds) in (1..9).zip(10..) {
            room.take(user(number), 10, now).unwrap().rest(now + second * seconds);
        }
        assert_eq!(room.take(user(3), 1, now).err(), Some(Full { whose: Owner::User, free_in: Some(second * 12) }));
        assert_eq!(room.take(user(9), 1, now).err(), Some(Full { whose: Owner::All, free_in: Some(second * 10) }));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_gets_what_is_given_back_and_hears_in_time_that_nothing_is() {
        let (room, second) = (Room::new(80), Duration::from_secs(1));
        let all = room.wait(user(1), 1000, second).await.expect("it counts as all that one user may take");
        let waiting = room.wait(user(1), 4, second);
        let given_back = async {
            tokio::time::sleep(second / 2).await;
            drop(all);
        };
        let (share, ()) = tokio::join!(waiting, given_back);
        let (_share, waited) = (share.expect("there is room again"), tokio::time::Instant::now());
        let full = Some(Full { whose: Owner::User, free_in: None });
        assert_eq!(room.wait(user(1), 7, second).await.err(), full);
        assert_eq!(waited.elapsed(), second);
        assert!(room.wait(user(2), 10, second).await.is_ok(), "another user has a part of his own");
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
                    Ok(share) if rests => share.rest(now + Duration::from_secs(300)),
                    Ok(share) => held.push(share),
                    Err(_) => drop(held.pop()),
                }
                let state = room.state();
                prop_assert!(state.used <= 100 && state.users.values().all(|used| (1..=12).contains(used)));
                prop_assert_eq!(state.used, state.users.values().sum::<usize>());
            }
            held.clear();
            drop(room.take(user(9), 0, now + Duration::from_secs(300)).unwrap());
            prop_assert!(room.state().users.is_empty() && room.state().used == 0);
        }
    }
}
