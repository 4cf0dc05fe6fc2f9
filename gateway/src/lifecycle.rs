//! Stops the program in order: no new connections, calls in flight finish, duties flush, exit.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use futures::future::BoxFuture;
use pingora::server::{ListenFds, ShutdownSignal, ShutdownSignalWatch, ShutdownWatch};
use pingora::services::Service;
use pingora::services::background::{BackgroundService, GenBackgroundService};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tracing::{error, info, warn};

/// How long duties may take to flush once no request runs any more.
const FLUSH: Duration = Duration::from_secs(15);

/// What of the program runs, and whether it should stop.
pub struct Lifecycle {
    requests: Group,
    duties: Group,
    broken: watch::Sender<bool>,
    drain: Duration,
}

/// Members that are told together to stop, and waited for.
struct Group {
    stop: watch::Sender<bool>,
    running: watch::Sender<usize>,
}

/// One member of a group; it leaves the group when dropped.
pub struct Running(watch::Sender<usize>);

/// A listening service that closes its ports first of all.
pub struct Accepting<S> {
    service: S,
    stop: ShutdownWatch,
}

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
    /// A program that gives requests in flight some time when it stops.
    #[must_use]
    pub fn new(drain: Duration) -> Arc<Self> {
        let broken = watch::Sender::new(false);
        Arc::new(Self { requests: Group::new(), duties: Group::new(), broken, drain })
    }

    /// Counts a request in flight for as long as the result lives.
    #[must_use]
    pub fn enter(&self) -> Running {
        self.requests.enter()
    }

    /// Binds a listening service to the first step of stopping.
    pub fn accepting<S>(&self, service: S) -> Accepting<S> {
        Accepting { service, stop: self.requests.stop.subscribe() }
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
        *self.broken.borrow()
    }

    async fn finish(&self, signals: &mut Signals) {
        info!("stopping: refusing new connections");
        self.requests.stop.send_replace(true);
        tokio::select! {
            done = tokio::time::timeout(self.drain, self.requests.empty()) => {
                if done.is_err() {
                    warn!("stopping: requests still run at the end of the grace period");
                }
            }
            () = signals.next() => warn!("stopping: told again, cutting requests in flight"),
        }
        self.duties.stop.send_replace(true);
        if tokio::time::timeout(FLUSH, self.duties.empty()).await.is_err() {
            error!("stopping: a duty did not flush in time");
        }
        info!("stopped");
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
impl<S: Service> Service for Accepting<S> {
    async fn start_service(&mut self, fds: Option<ListenFds>, _server: ShutdownWatch, listeners_per_fd: usize) {
        self.service.start_service(fds, self.stop.clone(), listeners_per_fd).await;
    }

    fn name(&self) -> &str {
        self.service.name()
    }

    fn threads(&self) -> Option<usize> {
        self.service.threads()
    }

    fn listen_addresses(&self) -> Option<Vec<String>> {
        self.service.listen_addresses()
    }
}

#[async_trait]
impl BackgroundService for Duty {
    async fn start(&self, _server: ShutdownWatch) {
        let running = self.lifecycle.duties.enter();
        let stop = self.lifecycle.duties.stop.subscribe();
        (self.task)(stop.clone()).await;
        drop(running);
        if !*stop.borrow() {
            error!(duty = self.name, "a duty ended although nobody told it to");
            self.lifecycle.broken.send_replace(true);
        }
    }
}

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
        let mut broken = self.0.broken.subscribe();
        tokio::select! {
            () = signals.next() => {}
            // The sender lives in the life cycle, so this ends only when a duty did.
            _ = broken.wait_for(|broken| *broken) => {}
        }
        self.0.finish(&mut signals).await;
        ShutdownSignal::GracefulTerminate
    }
}
