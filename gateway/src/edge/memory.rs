//! Follows how much of its memory the process uses, and says what that leaves room for.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use tracing::{info, warn};

use crate::metrics::Metrics;

/// How often the memory is looked at: a body of 32 MiB takes longer to arrive.
const LOOK: Duration = Duration::from_millis(100);
/// Percent of the budget that must become free before something refused is taken again.
const SLACK: u64 = 3;
/// Where the limits of control groups are.
const GROUPS: &str = "/sys/fs/cgroup";

/// What there is memory for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Room {
    /// Everything.
    Calls = 0,
    /// New connections, but no new calls.
    Connections = 1,
    /// Only what is there already.
    None = 2,
}

/// The memory of this process.
pub struct Memory {
    budget: u64,
    no_calls: u8,
    no_connections: u8,
    room: AtomicU8,
    metrics: Arc<Metrics>,
}

impl Memory {
    /// Memory of so many bytes, or of what the control group or the machine has where that is 0; percentages of it
    /// from which calls and connections are refused.
    ///
    /// # Errors
    /// When the system does not say how much there is, or connections would be refused before calls.
    pub fn new(budget: u64, no_calls: u8, no_connections: u8, metrics: Arc<Metrics>) -> anyhow::Result<Self> {
        ensure!(no_calls <= no_connections, "memory must refuse calls no later than connections");
        let budget = if budget == 0 { limit()? } else { budget };
        info!(bytes = budget, "memory budget");
        metrics.edge.memory_budget.set(i64::try_from(budget).unwrap_or(i64::MAX));
        Ok(Self { budget, no_calls, no_connections, room: AtomicU8::new(Room::Calls as u8), metrics })
    }

    /// What there is room for.
    #[must_use]
    pub fn room(&self) -> Room {
        match self.room.load(Ordering::Relaxed) {
            0 => Room::Calls,
            1 => Room::Connections,
            _ => Room::None,
        }
    }

    /// Looks at the memory, for as long as it is polled.
    pub async fn follow(self: Arc<Self>) {
        loop {
            match used() {
                Ok(used) => self.note(used),
                Err(error) => warn!(%error, "cannot see how much memory is in use"),
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn note(&self, used: u64) {
        self.metrics.edge.memory_used.set(i64::try_from(used).unwrap_or(i64::MAX));
        let (before, now) = (self.room(), self.judge(used));
        if before == now {
            return;
        }
        self.room.store(now as u8, Ordering::Relaxed);
        match now {
            Room::Calls => info!(bytes = used, "there is memory for calls again"),
            Room::Connections => warn!(bytes = used, "memory is short: refusing new calls"),
            Room::None => warn!(bytes = used, "memory is very short: refusing new calls and connections"),
        }
    }

    /// The room at this use: refused from a mark on, and until the use is a little below it.
    fn judge(&self, used: u64) -> Room {
        let over = |percent: u8, room: Room| {
            let slack = if self.room() >= room { SLACK } else { 0 };
            u128::from(used) * 100 >= u128::from(self.budget) * u128::from(u64::from(percent).saturating_sub(slack))
        };
        if over(self.no_connections, Room::None) {
            return Room::None;
        }
        if over(self.no_calls, Room::Connections) { Room::Connections } else { Room::Calls }
    }
}

/// Bytes of memory that this process has.
fn used() -> anyhow::Result<u64> {
    let facts = fs::read_to_string("/proc/self/statm").context("reading the memory of this process")?;
    let pages: u64 = facts.split(' ').nth(1).and_then(|pages| pages.parse().ok()).context("reading its pages")?;
    Ok(pages * rustix::param::page_size() as u64)
}

/// Bytes that this process can have: the smallest limit of its control groups, or the machine's memory.
fn limit() -> anyhow::Result<u64> {
    let facts = fs::read_to_string("/proc/meminfo").context("reading the memory of the machine")?;
    let kibibytes = facts.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"));
    let machine = 1024 * kibibytes.and_then(|number| number.parse::<u64>().ok()).context("reading its size")?;
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    Ok(groups.lines().find_map(|line| line.strip_prefix("0::")).map_or(machine, |group| {
        let limits = limits(Path::new(GROUPS), group);
        limits.into_iter().fold(machine, u64::min)
    }))
}

/// The limits of a group and of those that it is in.
fn limits(root: &Path, group: &str) -> Vec<u64> {
    let folder = root.join(group.trim_start_matches('/'));
    // A group without a limit says `max`.
    let limit = |folder: &Path| fs::read_to_string(folder.join("memory.max")).ok()?.trim().parse().ok();
    folder.ancestors().take_while(|folder| folder.starts_with(root)).filter_map(limit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> Memory {
        Memory::new(1000, 95, 98, Arc::new(Metrics::new().unwrap())).unwrap()
    }

    #[test]
    fn calls_are_refused_from_95_percent_and_connections_from_98() {
        for (used, room) in [(949, Room::Calls), (950, Room::Connections), (979, Room::Connections), (980, Room::None)]
        {
            let memory = memory();
            memory.note(used);
            assert_eq!(memory.room(), room, "{used}");
        }
    }

    #[test]
    fn what_was_refused_is_taken_again_only_a_little_below_its_mark() {
        let memory = memory();
        let steps = [
            (985, Room::None),
            (979, Room::None),
            (950, Room::None),
            (949, Room::Connections),
            (979, Room::Connections),
            (920, Room::Connections),
            (919, Room::Calls),
            (949, Room::Calls),
        ];
        for (used, room) in steps {
            memory.note(used);
            assert_eq!(memory.room(), room, "{used}");
        }
    }

    #[test]
    fn the_use_and_the_budget_are_shown() {
        let memory = memory();
        memory.note(7);
        let edge = &memory.metrics.edge;
        assert_eq!((edge.memory_used.get(), edge.memory_budget.get()), (7, 1000));
    }

    #[test]
    fn the_process_sees_its_memory_grow() {
        let before = used().unwrap();
        let bytes = vec![1_u8; 64 << 20];
        assert!(used().unwrap() >= before + (60 << 20), "{} bytes more", bytes.len());
    }

    #[test]
    fn the_smallest_limit_of_nested_groups_holds() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("pod/container");
        fs::create_dir_all(&inner).unwrap();
        fs::write(root.path().join("pod/memory.max"), "1000\n").unwrap();
        fs::write(inner.join("memory.max"), "max\n").unwrap();
        assert_eq!(limits(root.path(), "/pod/container"), [1000]);
        fs::write(inner.join("memory.max"), "500\n").unwrap();
        assert_eq!(limits(root.path(), "/pod/container"), [500, 1000]);
        assert!(limits(root.path(), "/").is_empty());
    }

    #[test]
    fn without_a_setting_the_budget_is_what_the_system_gives() {
        assert!(limit().unwrap() >= 1 << 27);
    }

    #[test]
    fn marks_in_the_wrong_order_are_refused() {
        assert!(Memory::new(1000, 98, 95, Arc::new(Metrics::new().unwrap())).is_err());
    }
}
