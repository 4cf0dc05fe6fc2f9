//! A listening service that begins when there are sockets for it, and closes them when it is told.

use std::pin::pin;
use std::sync::Arc;

use anyhow::Context;
use async_trait::async_trait;
use pingora::server::{ListenFds, ShutdownWatch};
use pingora::services::Service;
use tokio::sync::watch;
use tracing::error;

use super::sockets::Sockets;

/// A listening service that begins when there are sockets for it, and closes them when it is told.
pub struct Accepting<S> {
    pub(super) service: S,
    pub(super) stop: ShutdownWatch,
    pub(super) sockets: watch::Receiver<Option<Arc<Sockets>>>,
    /// How many of the program's listening services accept connections.
    pub(super) accepting: watch::Sender<usize>,
}

impl<S: Service> Accepting<S> {
    /// The sockets, none if the program stops before there are any.
    async fn sockets(&mut self) -> Option<Arc<Sockets>> {
        tokio::select! {
            _ = self.stop.wait_for(|stop| *stop) => None,
            sockets = self.sockets.wait_for(Option::is_some) => sockets.ok()?.clone(),
        }
    }

    fn lend(&self, sockets: &Sockets, table: Option<&ListenFds>) -> anyhow::Result<()> {
        let table = table.context("the framework keeps no table of sockets")?;
        let addresses = self.service.listen_addresses().context("a service does not say where it listens")?;
        addresses.iter().try_for_each(|address| sockets.lend(address, table))
    }
}

#[async_trait]
impl<S: Service> Service for Accepting<S> {
    async fn start_service(&mut self, table: Option<ListenFds>, _server: ShutdownWatch, listeners_per_fd: usize) {
        let Some(sockets) = self.sockets().await else { return };
        if let Err(error) = self.lend(&sockets, table.as_ref()) {
            error!(%error, "a service has nothing to listen on");
            return;
        }
        // Whoever keeps them here keeps the ports open.
        drop(sockets);
        let mut serving = pin!(self.service.start_service(table, self.stop.clone(), listeners_per_fd));
        tokio::select! {
            // When this waits for the first time, connections are being accepted.
            biased;
            () = &mut serving => return,
            () = std::future::ready(()) => {}
        }
        self.accepting.send_modify(|accepting| *accepting += 1);
        serving.await;
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
