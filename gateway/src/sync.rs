//! The lock and the map of what threads share in memory; in tests under shuttle, each taking of one is a point where
//! threads change.

#[cfg(not(test))]
pub(crate) use std::sync::Mutex;

#[cfg(test)]
pub(crate) use interleaved::{Map, Mutex, explore};

/// A map of which each entry is locked by itself.
#[cfg(not(test))]
pub(crate) type Map<K, V> = dashmap::DashMap<K, V, ahash::RandomState>;

#[cfg(test)]
mod interleaved {
    use std::cell::Cell;
    use std::hash::Hash;
    use std::ops::Deref;
    use std::sync::{LockResult, MutexGuard};

    use dashmap::DashMap;
    use shuttle::scheduler::RandomScheduler;
    use shuttle::{Config, Runner};

    /// Bytes of a thread's stack; without optimisation much lies there.
    const STACK: usize = 256 << 10;

    thread_local! {
        static EXPLORED: Cell<bool> = const { Cell::new(false) };
    }

    /// A standard lock before which shuttle may run other threads. What is done under it never changes threads, so
    /// that these are all the orders there are.
    #[derive(Debug)]
    pub(crate) struct Mutex<T>(std::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(std::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
            change_threads();
            self.0.lock()
        }
    }

    /// A map before whose every use shuttle may run other threads.
    pub(crate) struct Map<K, V>(DashMap<K, V, ahash::RandomState>);

    impl<K: Eq + Hash, V> Default for Map<K, V> {
        fn default() -> Self {
            Self(DashMap::default())
        }
    }

    impl<K: Eq + Hash, V> Deref for Map<K, V> {
        type Target = DashMap<K, V, ahash::RandomState>;

        fn deref(&self) -> &Self::Target {
            change_threads();
            &self.0
        }
    }

    fn change_threads() {
        if EXPLORED.get() {
            shuttle::thread::yield_now();
        }
    }

    /// Runs threads in this many random orders; shuttle runs them all on this one.
    pub(crate) fn explore(orders: usize, threads: impl Fn() + Send + Sync + 'static) {
        EXPLORED.set(true);
        let mut config = Config::new();
        config.stack_size = STACK;
        Runner::new(RandomScheduler::new(orders), config).run(threads);
        EXPLORED.set(false);
    }
}
