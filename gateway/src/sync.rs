//! The lock of what threads share in memory; in tests under shuttle, each taking of it is a point where threads change.

#[cfg(not(test))]
pub(crate) use std::sync::Mutex;

#[cfg(test)]
pub(crate) use interleaved::{Mutex, explore};

#[cfg(test)]
mod interleaved {
    use std::cell::Cell;
    use std::sync::{LockResult, MutexGuard};

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
            if EXPLORED.get() {
                shuttle::thread::yield_now();
            }
            self.0.lock()
        }
    }

    /// Runs threads in this many random orders; shuttle runs them all on this one.
    pub(crate) fn explore(orders: usize, threads: impl Fn() + Send + Sync + 'static) {
        EXPLORED.set(true);
        shuttle::check_random(threads, orders);
        EXPLORED.set(false);
    }
}
