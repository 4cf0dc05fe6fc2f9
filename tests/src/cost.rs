//! What a running process costs: processor time and memory, as the kernel counts them.

use std::fs;
use std::time::Duration;

use anyhow::Context;

/// Ticks of the kernel's clock per second, on every Linux.
const TICKS: u64 = 100;
/// Fields of `/proc/PID/stat` behind the name: the parent, then own and waited-for processor time.
const PARENT: usize = 1;
const OWN: [usize; 2] = [11, 12];
const ENDED: [usize; 2] = [13, 14];

/// Processor time of a process, its children and those of them that have ended.
///
/// # Errors
/// When there is no such process.
pub fn processor_time(pid: u32) -> anyhow::Result<Duration> {
    let mut ticks: u64 = fields(pid)?.numbers(&[OWN, ENDED].concat());
    for child in children(pid)? {
        // One that ends meanwhile is counted with its parent next time.
        ticks += fields(child).map_or(0, |fields| fields.numbers(&OWN));
    }
    Ok(Duration::from_millis(ticks * 1000 / TICKS))
}

/// Processor time of this process, without its children.
#[must_use]
pub fn own_processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// Resident memory that is the process's own, in bytes: without pages of files.
///
/// # Errors
/// When there is no such process.
pub fn own_memory(pid: u32) -> anyhow::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).context("reading a process's memory")?;
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:")).context("a process without memory")?;
    let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse().context("reading a process's memory")?;
    Ok(kibibytes * 1024)
}

struct Fields(Vec<String>);

impl Fields {
    fn numbers(&self, places: &[usize]) -> u64 {
        places.iter().filter_map(|place| self.0.get(*place)?.parse::<u64>().ok()).sum()
    }
}

fn fields(pid: u32) -> anyhow::Result<Fields> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).context("reading what a process used")?;
    let (_, behind_name) = text.rsplit_once(')').context("a process without a name")?;
    Ok(Fields(behind_name.split_whitespace().map(str::to_owned).collect()))
}

fn children(pid: u32) -> anyhow::Result<Vec<u32>> {
    let processes = fs::read_dir("/proc").context("listing processes")?;
    let all = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    Ok(all.filter(|other| fields(*other).is_ok_and(|fields| fields.numbers(&[PARENT]) == u64::from(pid))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_used_time_and_memory() {
        let before = processor_time(std::process::id()).unwrap();
        let mut work = 1_u64;
        while processor_time(std::process::id()).unwrap() < before + Duration::from_millis(50) {
            work = (0..100_000).fold(work, |work, step| std::hint::black_box(work.wrapping_mul(31) + step));
        }
        assert!(own_memory(std::process::id()).unwrap() > 100_000);
    }

    #[test]
    fn a_child_counts_and_a_process_that_is_gone_is_an_error() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        assert!(children(std::process::id()).unwrap().contains(&child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(processor_time(child.id()).is_err());
    }
}
