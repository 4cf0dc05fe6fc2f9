//! Stops the program in order: no new connections, calls in flight finish, duties flush, exit.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use futures::future::BoxFuture;
use pingora::server::{ShutdownSignal, ShutdownSignalWatch, ShutdownWatch};
use pingora::services::background::{BackgroundService, GenBackgroundService};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tracing::{error, info, warn};

/// How long duties may take to flush once no request runs any more.
const FLUSH: Duration = Duration::from_secs(15);
/// How long the last bytes of answers may take to leave once no request runs any more.
const LAST_BYTES: Duration = Duration::from_secs(2);

/// What of the program runs, and whether it should stop.
pub struct Lifecycle {
    requests: Group,
    connections: Group,
    duties: Group,
    unwatched: watch::Sender<bool>,
    end: watch::Sender<Option<Cause>>,
    patience: Patience,
}

/// How long a program that stops waits.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For requests in flight.
    pub drain: Duration,
    /// For requests in flight when the next program accepts connections already.
    pub replaced: Duration,
    /// For another request on an idle connection, when the next program accepts connections already.
    pub linger: Duration,
}

/// Why a program stops by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// A duty ended although nobody told it to.
    Broken,
    /// The next program has taken over.
    Replaced,
}

/// Members that are told together to stop, and waited for.
struct Group {
    stop: watch::Sender<bool>,
    running: watch::Sender<usize>,
}

/// One member of a group; it leaves the group when dropped.
pub struct Running(watch::Sender<usize>);

/// What a duty does, until what it is given says stop.
type Task = Box<dyn Fn(ShutdownWatch) -> BoxFuture<'static, ()> + Send + Sync>;

/// A permanent task: it ends when told to stop, never before.
pub struct Duty {
    name: &'static str,
    task: Task,
    lifecycle: Arc<Lifecycle>,
}

/// Tells the proxy server when everything has stopped.
pub struct Stop(pub Arc<Lifecycle>);

impl Lifecycle {
    /// A program that waits so long when it stops.
    #[must_use]
    pub fn new(patience: Patience) -> Arc<Self> {
        Arc::new(Self {
            requests: Group::new(),
            connections: Group::new(),
            duties: Group::new(),
            unwatched: watch::Sender::new(false),
            end: watch::Sender::new(None),
            patience,
        })
    }

    /// Counts a request in flight for as long as the result lives.
    #[must_use]
    pub fn enter(&self) -> Running {
        self.requests.enter()
    }

    /// Counts a client's connection as open for as long as the result lives.
    #[must_use]
    pub fn open(&self) -> Running {
        self.connections.enter()
    }

    /// Says when no connections are accepted any more: the first step of stopping.
    #[must_use]
    pub fn stopping(&self) -> ShutdownWatch {
        self.requests.stop.subscribe()
    }

    /// Says when the internal listener closes: as soon as the program is replaced, else last of all.
    #[must_use]
    pub fn unwatched(&self) -> ShutdownWatch {
        self.unwatched.subscribe()
    }

    /// Stops the program because the next one accepts connections in its place.
    pub fn replace(&self) {
        self.end.send_replace(Some(Cause::Replaced));
    }

    /// How long an idle connection stays open in a program that stops.
    #[must_use]
    pub fn linger(&self) -> Duration {
        let replaced = *self.end.borrow() == Some(Cause::Replaced);
        if replaced { self.patience.linger } else { Duration::ZERO }
    }

    /// Makes a service of a permanent task, with a thread of its own.
    pub fn duty<F, R>(self: &Arc<Self>, name: &'static str, task: F) -> GenBackgroundService<Duty>
    where
        F: Fn(ShutdownWatch) -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let task: Task = Box::new(move |stop| task(stop).boxed());
        GenBackgroundService::new(name.to_owned(), Arc::new(Duty { name, task, lifecycle: self.clone() }))
    }

    /// Whether a duty ended although nobody told it to.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        *self.end.borrow() == Some(Cause::Broken)
    }

    async fn finish(&self, signals: &mut Signals) {
        self.requests.stop.send_replace(true);
        if *self.end.borrow() == Some(Cause::Replaced) {
            info!("replaced: finishing what runs here");
            self.unwatched.send_replace(true);
            tokio::select! {
                done = tokio::time::timeout(self.patience.replaced, self.left()) => {
                    if done.is_err() {
                        warn!("replaced: requests still run at the end of the grace period");
                    }
                }
                () = signals.next() => self.drain(signals).await,
            }
        } else {
            self.drain(signals).await;
        }
        self.duties.stop.send_replace(true);
        if tokio::time::timeout(FLUSH, self.duties.empty()).await.is_err() {
            error!("stopping: a duty did not flush in time");
        }
        self.unwatched.send_replace(true);
        info!("stopped");
    }

    async fn drain(&self, signals: &mut Signals) {
        info!("stopping: finishing requests in flight");
        tokio::select! {
            done = tokio::time::timeout(self.patience.drain, self.requests.empty()) => {
                if done.is_err() {
                    warn!("stopping: requests still run at the end of the grace period");
                }
            }
            () = signals.next() => return warn!("stopping: told again, cutting requests in flight"),
        }
        self.close(LAST_BYTES).await;
    }

    /// Until all clients have left.
    async fn left(&self) {
        // Connections that were accepted but have not finished their handshake are not counted yet.
        tokio::time::sleep(self.patience.linger).await;
        self.requests.empty().await;
        self.close(self.patience.drain).await;
    }

    /// Until all connections are closed: what was written last to one of HTTP/2 leaves it after its request is over.
    async fn close(&self, within: Duration) {
        if tokio::time::timeout(within, self.connections.empty()).await.is_err() {
            info!("stopping: closing connections on which nothing is asked");
        }
    }
}

impl Group {
    fn new() -> Self {
        Self { stop: watch::Sender::new(false), running: watch::Sender::new(0) }
    }

    fn enter(&self) -> Running {
        self.running.send_modify(|running| *running += 1);
        Running(self.running.clone())
    }

    async fn empty(&self) {
        let mut running = self.running.subscribe();
        // The sender lives in `self`, so waiting ends only when the group is empty.
        let _ = running.wait_for(|running| *running == 0).await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.send_modify(|running| *running -= 1);
    }
}

#[async_trait]
impl BackgroundService for Duty {
    async fn start(&self, _server: ShutdownWatch) {
        let _running = self.lifecycle.duties.enter();
        let _ending = Ending(self);
        (self.task)(self.lifecycle.duties.stop.subscribe()).await;
    }
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        let Duty { name, lifecycle, .. } = self.0;
        if !*lifecycle.duties.stop.borrow() {
            error!(duty = name, "a duty ended although nobody told it to");
            lifecycle.end.send_if_modified(|end| {
                let first = end.is_none();
                end.get_or_insert(Cause::Broken);
                first
            });
        }
    }
}

/// Dropped when a duty ends, also when it panics.
struct Ending<'a>(&'a Duty);

/// The two signals that ask the program to stop.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[async_trait]
impl ShutdownSignalWatch for Stop {
    async fn recv(&self) -> ShutdownSignal {
        let mut signals = Signals::listen().expect("the process may handle signals");
        let mut end = self.0.end.subscribe();
        tokio::select! {
            () = signals.next() => {}
            // The sender lives in the life cycle, so this ends only with a cause.
            _ = end.wait_for(Option::is_some) => {}
        }
        self.0.finish(&mut signals).await;
        ShutdownSignal::GracefulTerminate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience { drain: Duration::ZERO, replaced: Duration::ZERO, linger: Duration::ZERO };

    /// Whether the program is broken once this duty is over.
    async fn is_broken_after<R>(duty: impl Fn(ShutdownWatch) -> R + Send + Sync + 'static, told: bool) -> bool
    where
        R: Future<Output = ()> + Send + 'static,
    {
        let lifecycle = Lifecycle::new(PATIENCE);
        lifecycle.duties.stop.send_replace(told);
        let service = lifecycle.duty("duty", duty);
        let (_stop, watched) = watch::channel(false);
        let ended = std::panic::AssertUnwindSafe(service.task().start(watched)).catch_unwind().await;
        assert!(ended.is_ok() || !told);
        lifecycle.is_broken()
    }

    #[tokio::test]
    async fn a_duty_that_ends_or_panics_before_it_is_told_to_ends_the_program() {
        assert!(is_broken_after(async |_| {}, false).await);
        assert!(is_broken_after(async |_| panic!("a defect"), false).await);
        assert!(!is_broken_after(async |_| {}, true).await);
    }
}
