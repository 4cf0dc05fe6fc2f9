//! Connections to instances that wait for their next call, bounded per instance and in all.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt;
use pingora::protocols::Stream;
use protocol::ids::InstanceId;
use tokio::io::AsyncReadExt;
use tokio::task::unconstrained;

use crate::directory::Directory;
use crate::metrics::{Metrics, Over};

/// How often connections are looked through for those that nobody will use.
const LOOK: Duration = Duration::from_secs(1);

/// What is kept, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// How long a connection waits.
    pub keep: Duration,
    /// Connections of one instance.
    pub each: usize,
    /// Connections of all instances.
    pub all: usize,
}

/// Connections to instances that wait for their next call.
pub struct Pool {
    bounds: Bounds,
    waiting: Mutex<Waiting>,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct Waiting {
    /// The one that waits longest is in front.
    by_instance: HashMap<InstanceId, VecDeque<Kept>>,
    number: usize,
}

struct Kept {
    stream: Stream,
    address: SocketAddr,
    since: Instant,
}

impl Pool {
    /// An empty one.
    #[must_use]
    pub fn new(bounds: Bounds, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { bounds, waiting: Mutex::default(), metrics })
    }

    /// A connection to an instance at this address that is still open.
    pub(super) fn take(&self, instance: InstanceId, address: SocketAddr) -> Option<Stream> {
        self.change(|waiting, closed| {
            loop {
                // The one that came last is the least likely to be closed by the other side.
                let mut kept = waiting.pop(instance, VecDeque::pop_back)?;
                if kept.address == address && self.is_usable(&mut kept) {
                    return Some(kept.stream);
                }
                closed.push(kept);
            }
        })
    }

    /// Keeps a connection for the next call, or closes the one that waits longest, or this one if there are too many.
    pub(super) fn put(&self, instance: InstanceId, address: SocketAddr, stream: Stream) {
        self.change(|waiting, closed| {
            let kept = Kept { stream, address, since: Instant::now() };
            if waiting.by_instance.get(&instance).is_some_and(|own| own.len() >= self.bounds.each) {
                closed.extend(waiting.pop(instance, VecDeque::pop_front));
            }
            if self.bounds.each == 0 || waiting.number >= self.bounds.all {
                return closed.push(kept);
            }
            waiting.by_instance.entry(instance).or_default().push_back(kept);
            waiting.number += 1;
        });
    }

    /// Closes, for as long as the program runs, what waited long enough and what belongs to no instance any more.
    pub async fn sweep_always(self: Arc<Self>, directory: Arc<Directory>) {
        loop {
            tokio::time::sleep(LOOK).await;
            let routes = directory.current();
            self.sweep(|instance| routes.as_ref().is_none_or(|routes| routes.has_instance(instance)));
        }
    }

    /// Counts a request by its connection.
    pub(super) fn count(&self, over: Over) {
        self.metrics.connections.count(over);
    }

    fn sweep(&self, is_known: impl Fn(InstanceId) -> bool) {
        self.change(|waiting, closed| {
            for (instance, own) in &mut waiting.by_instance {
                let known = is_known(*instance);
                let all = std::mem::take(own);
                for mut kept in all {
                    if known && self.is_usable(&mut kept) {
                        own.push_back(kept);
                    } else {
                        waiting.number -= 1;
                        closed.push(kept);
                    }
                }
            }
            waiting.by_instance.retain(|_, own| !own.is_empty());
        });
    }

    /// Changes what waits; connections put into the list are closed when nobody is kept waiting by it.
    fn change<T>(&self, change: impl FnOnce(&mut Waiting, &mut Vec<Kept>) -> T) -> T {
        let mut closed = Vec::new();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut waiting, &mut closed);
        self.metrics.connections.waiting.set(i64::try_from(waiting.number).unwrap_or(i64::MAX));
        drop(waiting);
        drop(closed);
        result
    }

    /// Whether it did not wait too long, and the other side neither closed it nor said anything on it.
    fn is_usable(&self, kept: &mut Kept) -> bool {
        kept.since.elapsed() < self.bounds.keep && unconstrained(kept.stream.read(&mut [0])).now_or_never().is_none()
    }
}

impl Waiting {
    fn pop(&mut self, instance: InstanceId, which: impl FnOnce(&mut VecDeque<Kept>) -> Option<Kept>) -> Option<Kept> {
        let own = self.by_instance.get_mut(&instance)?;
        let kept = which(own);
        self.number -= usize::from(kept.is_some());
        if own.is_empty() {
            self.by_instance.remove(&instance);
        }
        kept
    }
}

#[cfg(test)]
mod tests;
