//! Gives one program a core that everything else keeps off, so that it is the one that is short of processor.

use std::fs;

use anyhow::Context;
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::children::{Child, Launch, Spawner};

/// A core that this thread, and the threads and processes that it starts, do not use until this is dropped.
pub struct Core {
    alone: CpuSet,
    /// Where this thread could run before.
    before: CpuSet,
}

impl Core {
    /// Reserves one of the cores that this thread may use; none if it has only one.
    ///
    /// # Errors
    /// When the system does not let it.
    pub fn reserve() -> anyhow::Result<Option<Self>> {
        let before = sched_getaffinity(None).context("asking where this thread may run")?;
        let Some(core) = (0..CpuSet::MAX_CPU).rev().find(|core| before.is_set(*core)) else { return Ok(None) };
        if before.count() < 2 {
            return Ok(None);
        }
        let (mut alone, mut others) = (CpuSet::new(), before);
        alone.set(core);
        others.unset(core);
        sched_setaffinity(None, &others).context("keeping this thread off a core")?;
        Ok(Some(Self { alone, before }))
    }

    /// Has a process, and all that it starts from now on, run there and nowhere else.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn give_to(&self, process: u32) -> anyhow::Result<()> {
        // Threads that are started meanwhile have the place of those that start them: the second time all are there.
        for _ in 0..2 {
            for thread in threads(process)? {
                // One that has ended needs no place.
                let _ = sched_setaffinity(Some(thread), &self.alone);
            }
        }
        Ok(())
    }

    /// Has so many more processes run there that are never idle, until they are dropped: each leaves the others less.
    ///
    /// # Errors
    /// When one cannot be started.
    pub async fn crowd(&self, number: usize, spawner: &Spawner) -> anyhow::Result<Vec<Child>> {
        let mut crowd = Vec::new();
        for number in 0..number {
            let busy = Launch::new(&format!("busy-{number}"), "sh").arguments(["-c", "while :; do :; done"]);
            let busy = spawner.start(&busy).await?;
            self.give_to(busy.pid())?;
            crowd.push(busy);
        }
        Ok(crowd)
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        // The cores are there as they were: nothing can be wrong with them.
        let _ = sched_setaffinity(None, &self.before);
    }
}

fn threads(process: u32) -> anyhow::Result<Vec<Pid>> {
    let entries = fs::read_dir(format!("/proc/{process}/task")).context("listing the threads of a process")?;
    let number = |entry: std::io::Result<fs::DirEntry>| entry.ok()?.file_name().to_str()?.parse().ok();
    Ok(entries.filter_map(number).filter_map(Pid::from_raw).collect())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::screen;

    #[test]
    fn a_core_is_one_process_s_alone_until_it_is_given_back() {
        let before = sched_getaffinity(None).unwrap();
        let Some(core) = Core::reserve().unwrap() else {
            screen::say("SKIPPED: there is only one core");
            return;
        };
        let mut children = [(); 2].map(|()| Command::new("sleep").arg("60").spawn().unwrap());
        core.give_to(children[0].id()).unwrap();
        let [alone, others] =
            [0, 1].map(|child: usize| sched_getaffinity(Some(Pid::from_child(&children[child]))).unwrap());
        assert_eq!((alone.count(), others.count()), (1, before.count() - 1));
        assert!((0..CpuSet::MAX_CPU).all(|core| before.is_set(core) == (alone.is_set(core) || others.is_set(core))));
        for child in &mut children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        drop(core);
        assert!(sched_getaffinity(None).unwrap() == before);
        assert!(Core::reserve().unwrap().unwrap().give_to(children[0].id()).is_err(), "it is gone");
    }
}
