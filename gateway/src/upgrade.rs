//! The change from one gateway process to the next: who holds the listening sockets, and how they change hands.

mod accepting;
mod notify;
mod private_socket;
mod sockets;
mod wire;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use pingora::server::ShutdownWatch;
use pingora::services::Service;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{error, info, warn};

pub use self::accepting::Accepting;
use self::private_socket::{Draft, PrivateSocket};
use self::sockets::Sockets;
use self::wire::Word;
use crate::config;
use crate::lifecycle::Lifecycle;
use crate::metrics::Metrics;

/// How often a starting program is asked whether it is healthy.
const LOOK: Duration = Duration::from_millis(50);
/// How long listening services may take to begin.
const BEGIN: Duration = Duration::from_secs(10);

/// The sockets of this process, from its first to its last.
pub struct Upgrade {
    /// Where the next process asks for them.
    path: Option<PathBuf>,
    /// Where the service manager listens.
    manager: Option<PathBuf>,
    within: Duration,
    addresses: Vec<SocketAddr>,
    sockets: watch::Sender<Option<Arc<Sockets>>>,
    services: AtomicUsize,
    accepting: watch::Sender<usize>,
    metrics: Arc<Metrics>,
}

/// Where this process has its sockets from.
enum Origin {
    /// It opened them.
    Opened,
    /// The running process gave them, and still has to hear that they are in use.
    Given(UnixStream),
}

impl Upgrade {
    /// Opens the sockets, unless a running gateway is to hand them over.
    ///
    /// # Errors
    /// When an address is taken, or a gateway runs that was not to be replaced.
    pub fn begin(
        settings: &config::Upgrade,
        addresses: Vec<SocketAddr>,
        metrics: Arc<Metrics>,
    ) -> anyhow::Result<Arc<Self>> {
        let running = settings.upgrade_socket.as_deref().map(private_socket::is_answered).transpose()?.unwrap_or(false);
        let opened = match (running, settings.upgrade) {
            (true, true) => None,
            (true, false) => bail!("a gateway runs here already; start with --upgrade to replace it"),
            (false, true) => {
                warn!("no gateway runs that could hand its sockets over, opening them");
                Some(Sockets::open(&addresses)?)
            }
            (false, false) => Some(Sockets::open(&addresses)?),
        };
        Ok(Arc::new(Self {
            path: settings.upgrade_socket.clone(),
            manager: settings.notify_socket.clone(),
            within: settings.upgrade_within,
            addresses,
            sockets: watch::Sender::new(opened.map(Arc::new)),
            services: AtomicUsize::new(0),
            accepting: watch::Sender::new(0),
            metrics,
        }))
    }

    /// Makes a listening service wait for its sockets, and close them when told to stop.
    pub fn accepting<S: Service>(&self, service: S, stop: ShutdownWatch) -> Accepting<S> {
        self.services.fetch_add(1, Ordering::Relaxed);
        Accepting { service, stop, sockets: self.sockets.subscribe(), accepting: self.accepting.clone() }
    }

    /// Takes the sockets over if that is still to be done, and hands them to the next process that asks; returns when
    /// told, or before if this process cannot take its place.
    pub async fn run(&self, lifecycle: &Lifecycle, missing: impl Fn() -> Option<&'static str>, mut end: ShutdownWatch) {
        match self.hold(lifecycle, missing).await {
            Ok(()) => {
                // An error means that nobody is left to tell us to stop.
                let _ = end.wait_for(|end| *end).await;
            }
            Err(error) => error!(error = format!("{error:#}"), "this gateway cannot take its place"),
        }
    }

    /// Holds the sockets as long as this process accepts connections.
    async fn hold(&self, lifecycle: &Lifecycle, missing: impl Fn() -> Option<&'static str>) -> anyhow::Result<()> {
        let mut stop = lifecycle.stopping();
        let socket = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
            socket = self.take_place(&missing) => socket?,
        };
        let announce = async {
            until_healthy(&missing).await;
            notify::ready(self.manager.as_deref());
            std::future::pending::<()>().await;
        };
        tokio::select! {
            // A gateway that is replaced leaves the hand-over socket to the next one.
            () = self.serve(socket.as_ref()) => lifecycle.replace(),
            _ = stop.wait_for(|stop| *stop) => socket.into_iter().for_each(PrivateSocket::close),
            () = announce => {}
        }
        // What the framework was lent it closes itself.
        self.sockets.send_replace(None);
        Ok(())
    }

    /// Until this process accepts connections and is the one that hands over.
    async fn take_place(&self, missing: impl Fn() -> Option<&'static str>) -> anyhow::Result<Option<PrivateSocket>> {
        let opened = self.sockets.borrow().is_some();
        let origin = if opened {
            Origin::Opened
        } else {
            let waited = timeout(self.within, until_healthy(&missing)).await;
            waited.ok().with_context(|| format!("not healthy in time: {}", missing().unwrap_or("it only just is")))?;
            self.take_sockets().await?
        };
        let services = self.services.load(Ordering::Relaxed);
        let mut accepting = self.accepting.subscribe();
        let begun = timeout(BEGIN, accepting.wait_for(|accepting| *accepting == services)).await;
        begun.context("a service does not listen")??;
        // What may be refused comes before the running gateway goes.
        let draft = self.path.as_deref().map(Draft::new).transpose()?;
        if let Origin::Given(stream) = origin {
            self.confirm(stream).await?;
        }
        draft.map(Draft::publish).transpose()
    }

    async fn take_sockets(&self) -> anyhow::Result<Origin> {
        let path = self.path.as_deref().context("there is no hand-over socket")?;
        let taken = match private_socket::connect(path).await? {
            Some(mut stream) => {
                wire::say(&mut stream, Word::Ask).await.context("asking for the sockets")?;
                wire::take(&stream).await?.map(|given| (stream, given))
            }
            None => None,
        };
        let (sockets, origin) = match taken {
            Some((stream, given)) => (Sockets::take(&self.addresses, given)?, Origin::Given(stream)),
            None if private_socket::is_answered(path)? => {
                bail!("the running gateway keeps its sockets; its log says why")
            }
            None => {
                warn!("the gateway that ran is gone, opening its addresses");
                (Sockets::open(&self.addresses)?, Origin::Opened)
            }
        };
        self.sockets.send_replace(Some(Arc::new(sockets)));
        Ok(origin)
    }

    /// Tells the running gateway that connections are accepted here.
    async fn confirm(&self, mut stream: UnixStream) -> anyhow::Result<()> {
        let told = wire::say(&mut stream, Word::Accepting).await.is_ok();
        if told && wire::hear(&mut stream, Word::Yours).await? {
            info!("took over from the running gateway");
            return Ok(());
        }
        match &self.path {
            Some(path) if private_socket::is_answered(path)? => bail!("the running gateway goes on; its log says why"),
            _ => warn!("the gateway that ran ended while it handed over"),
        }
        Ok(())
    }

    /// Answers whoever comes until one has taken over.
    async fn serve(&self, socket: Option<&PrivateSocket>) {
        let Some(socket) = socket else { return std::future::pending().await };
        loop {
            let stream = socket.next().await;
            match self.hand_over(stream).await {
                Ok(true) => return,
                // Somebody looked whether a gateway runs.
                Ok(false) => {}
                Err(error) => {
                    self.metrics.upgrade.failed.inc();
                    warn!(error = format!("{error:#}"), "a hand-over failed, this gateway goes on");
                }
            }
        }
    }

    /// Whether the other side has taken over.
    async fn hand_over(&self, mut stream: UnixStream) -> anyhow::Result<bool> {
        wire::check_peer(&stream)?;
        if !wire::hear(&mut stream, Word::Ask).await? {
            return Ok(false);
        }
        info!("the next gateway asks for the sockets");
        let sockets = self.sockets.borrow().clone().context("there are no sockets")?;
        wire::give(&stream, &sockets.descriptors()).await?;
        if !wire::hear(&mut stream, Word::Accepting).await? {
            bail!("the next gateway ended before it accepted connections");
        }
        wire::say(&mut stream, Word::Yours)
            .await
            .context("the next gateway ended as soon as it accepted connections")?;
        Ok(true)
    }
}

async fn until_healthy(missing: impl Fn() -> Option<&'static str>) {
    while missing().is_some() {
        sleep(LOOK).await;
    }
}
