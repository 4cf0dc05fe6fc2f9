//! The HTTP client of the stack and its tests.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::children::Child;

/// Proofs run for hours on machines that do other work too.
const READY: Duration = Duration::from_secs(180);
const ANSWER: Duration = Duration::from_secs(5);

/// Finds every name on this machine, so that tests do not depend on its resolver.
struct Loopback;

impl Resolve for Loopback {
    fn resolve(&self, _name: Name) -> Resolving {
        let both = [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), SocketAddr::from((Ipv6Addr::LOCALHOST, 0))];
        Box::pin(std::future::ready(Ok(Box::new(both.into_iter()) as Addrs)))
    }
}

/// A client that reaches only this machine and trusts this authority and no other.
///
/// # Errors
/// When the authority's certificate cannot be read.
pub fn client(authority: Option<&Path>) -> anyhow::Result<reqwest::Client> {
    Ok(builder(authority)?.build()?)
}

/// The same client before it is made, for those who want more of it.
///
/// # Errors
/// When an authority's certificate cannot be read.
pub fn builder<'a>(authorities: impl IntoIterator<Item = &'a Path>) -> anyhow::Result<reqwest::ClientBuilder> {
    install_tls_provider();
    let mut builder = reqwest::Client::builder()
        .connect_timeout(ANSWER)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .dns_resolver(Arc::new(Loopback));
    for path in authorities {
        let pem = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        builder = builder.add_root_certificate(reqwest::Certificate::from_pem(&pem)?);
    }
    Ok(builder)
}

/// Waits until a program's internal listener says that it is healthy.
///
/// # Errors
/// When the program ends or takes too long.
pub async fn wait_until_healthy(internal_port: u16, process: &mut Child) -> anyhow::Result<()> {
    let web = client(None)?;
    let url = format!("http://127.0.0.1:{internal_port}/health");
    let deadline = tokio::time::Instant::now() + READY;
    loop {
        let answer = web.get(&url).timeout(ANSWER).send().await;
        if answer.as_ref().is_ok_and(|answer| answer.status().is_success()) {
            return Ok(());
        }
        if let Some(status) = process.ended()? {
            bail!("it ended at once ({status})");
        }
        if tokio::time::Instant::now() > deadline {
            match answer {
                Ok(answer) => bail!("it is not healthy: {}", answer.status()),
                Err(error) => return Err(error).context("it does not answer"),
            }
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}

/// Names ring as the process's one TLS provider.
pub fn install_tls_provider() {
    // Fails only when it is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
