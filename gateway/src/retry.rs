//! Bounds how many attempts may follow a failed one, so that retries never make an outage worse.
//!
//! In the ten seconds that end with any retry, of the whole process:
//! * retries ≤ a tenth of the calls, or the floor where that is more: attempts over calls ≤ 1.1, except where there are
//!   fewer calls than ten times the floor;
//! * of each chute, retries ≤ a tenth of its own calls, or half the floor where that is more;
//! * retries beyond a tenth of their own chute's calls ≤ the floor, over all chutes: so much of what the other chutes'
//!   calls have earned can one chute's trouble use up, and no more.
//!
//! Beside these, calls that were under way when the connection to their first instance broke may go on: of each chute as
//! many in ten seconds as one instance takes at once, so that an instance that dies costs no call, however few there are.
//!
//! Calls earn retries before they are spent, so a span that begins in a burst of failures can hold more retries than a
//! tenth of its own calls: those that the ten seconds before it have earned.

use std::collections::HashMap;
use std::time::Duration;

use ahash::RandomState;
use protocol::ids::ChuteId;

/// The span of the bound.
pub const SPAN: Duration = Duration::from_secs(10);
/// Calls that earn one retry.
const CALLS_PER_RETRY: u32 = 10;
/// Slots of a span; its exact ends lie within one, on which both counts err to the safe side.
const SLOTS: u64 = 40;

/// The retries of one process. Times are durations since any fixed moment.
#[derive(Debug)]
pub struct Budget {
    floor: u32,
    all: Window,
    /// Retries that their own chute's calls had not earned.
    unearned: Window,
    chutes: HashMap<ChuteId, Window, RandomState>,
}

/// Whose budget is spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spent {
    /// The chute's own.
    Chute,
    /// That of the process.
    Gateway,
}

/// Calls and retries of the last ten seconds.
#[derive(Clone, Debug)]
struct Window {
    slots: [Slot; SLOTS as usize + 1],
    /// The slot of the latest event.
    latest: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    calls: u32,
    retries: u32,
    orphans: u32,
}

impl Spent {
    /// The word it is counted by.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Chute => "chute",
            Self::Gateway => "gateway",
        }
    }
}

impl Budget {
    /// A budget that always has `floor` retries in ten seconds.
    #[must_use]
    pub fn new(floor: u32) -> Self {
        Self { floor, all: Window::default(), unearned: Window::default(), chutes: HashMap::default() }
    }

    /// Notes the first attempt of a call.
    pub fn call(&mut self, chute: ChuteId, now: Duration) {
        self.all.slot(now).calls += 1;
        self.chutes.entry(chute).or_default().slot(now).calls += 1;
    }

    /// Takes a retry of a call of this chute, of which so many are orphans in ten seconds if it is one.
    ///
    /// # Errors
    /// When there is none left: the call has to end.
    pub fn retry(&mut self, chute: ChuteId, orphans: Option<u32>, now: Duration) -> Result<(), Spent> {
        self.retry_of_any(chute, now).or_else(|spent| {
            let own = self.chutes.entry(chute).or_default();
            if own.orphans(now) >= orphans.unwrap_or(0) {
                return Err(spent);
            }
            own.slot(now).orphans += 1;
            Ok(())
        })
    }

    fn retry_of_any(&mut self, chute: ChuteId, now: Duration) -> Result<(), Spent> {
        let own = self.chutes.entry(chute).or_default();
        let (calls, retries) = own.sums(now);
        let earned = retries < calls / CALLS_PER_RETRY;
        if !earned && retries >= self.floor.div_ceil(2) {
            return Err(Spent::Chute);
        }
        let (calls, retries) = self.all.sums(now);
        let (_, unearned) = self.unearned.sums(now);
        if retries >= self.floor.max(calls / CALLS_PER_RETRY) || (!earned && unearned >= self.floor) {
            return Err(Spent::Gateway);
        }
        own.slot(now).retries += 1;
        self.all.slot(now).retries += 1;
        if !earned {
            self.unearned.slot(now).retries += 1;
        }
        Ok(())
    }

    /// Forgets chutes without calls in the last ten seconds.
    pub fn keep_recent(&mut self, now: Duration) {
        let current = slot_at(now);
        self.chutes.retain(|_, window| window.latest + SLOTS >= current);
    }
}

impl Default for Window {
    fn default() -> Self {
        Self { slots: [Slot::default(); SLOTS as usize + 1], latest: 0 }
    }
}

impl Window {
    /// The slot of now; those that lie too far back are emptied. A clock that goes back counts as standing still.
    fn slot(&mut self, now: Duration) -> &mut Slot {
        let current = slot_at(now).max(self.latest);
        let stale = (current - self.latest).min(SLOTS + 1);
        for slot in current + 1 - stale..=current {
            self.slots[index(slot)] = Slot::default();
        }
        self.latest = current;
        &mut self.slots[index(current)]
    }

    /// Calls that surely are of the span that ends now, and retries that may be.
    fn sums(&mut self, now: Duration) -> (u32, u32) {
        self.slot(now);
        let oldest = self.slots[index(self.latest + 1)];
        let (calls, retries) = self.slots.iter().fold((0_u32, 0_u32), |(calls, retries), slot| {
            (calls.saturating_add(slot.calls), retries.saturating_add(slot.retries))
        });
        (calls - oldest.calls, retries)
    }

    /// Orphans that may be of the span that ends now.
    fn orphans(&mut self, now: Duration) -> u32 {
        self.slot(now);
        self.slots.iter().map(|slot| slot.orphans).sum()
    }
}

fn slot_at(now: Duration) -> u64 {
    u64::try_from(now.as_nanos() * u128::from(SLOTS) / SPAN.as_nanos()).unwrap_or(u64::MAX - SLOTS)
}

fn index(slot: u64) -> usize {
    usize::try_from(slot % (SLOTS + 1)).expect("a remainder of 41")
}

#[cfg(test)]
mod tests;
