//! Bounds what answers take, while they are recorded here and while they rest in Redis.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

/// The bytes that the answers of this gateway may take.
pub struct Room {
    total: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    used: usize,
    /// When parts of it become free, the soonest first.
    resting: VecDeque<(Instant, usize)>,
}

/// A part of the room; given back when dropped.
pub struct Share {
    room: Arc<Room>,
    bytes: usize,
}

impl Room {
    /// Room for so many bytes.
    #[must_use]
    pub fn new(total: usize) -> Arc<Self> {
        Arc::new(Self { total, state: Mutex::default() })
    }

    /// Takes some of it, if there is as much.
    #[must_use]
    pub fn take(self: &Arc<Self>, bytes: usize, now: Instant) -> Option<Share> {
        let mut share = Share { room: Arc::clone(self), bytes: 0 };
        share.grow(bytes, now).then_some(share)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics under this lock")
    }
}

impl Share {
    /// Takes more, if there is as much.
    #[must_use]
    pub fn grow(&mut self, bytes: usize, now: Instant) -> bool {
        let mut state = self.room.state();
        while let Some((_, rested)) = state.resting.pop_front_if(|(until, _)| *until <= now) {
            state.used -= rested;
        }
        if self.room.total - state.used < bytes {
            return false;
        }
        state.used += bytes;
        self.bytes += bytes;
        true
    }

    /// Leaves it taken until then. All shares rest for the same time.
    pub fn rest(mut self, until: Instant) {
        let bytes = std::mem::take(&mut self.bytes);
        self.room.state().resting.push_back((until, bytes));
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.room.state().used -= self.bytes;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn no_more_is_taken_than_there_is_and_what_is_dropped_is_free() {
        let (room, now) = (Room::new(10), Instant::now());
        let mut one = room.take(6, now).unwrap();
        assert!(room.take(5, now).is_none());
        assert!(one.grow(4, now) && !one.grow(1, now));
        drop(one);
        assert!(room.take(10, now).is_some());
    }

    #[test]
    fn what_rests_is_free_when_its_time_is_over() {
        let (room, now) = (Room::new(10), Instant::now());
        let later = now + Duration::from_secs(600);
        room.take(6, now).unwrap().rest(later);
        room.take(4, now).unwrap().rest(later + Duration::from_secs(1));
        assert!(room.take(1, later - Duration::from_secs(1)).is_none());
        assert!(room.take(7, later).is_none());
        assert!(room.take(6, later).is_some());
        assert!(room.take(10, later + Duration::from_secs(1)).is_some());
    }
}
