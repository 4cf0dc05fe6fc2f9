//! Chooses the certificate by TLS name, from a folder that may change while the program runs.

use std::any::Any;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, ensure};
use arc_swap::ArcSwap;
use async_trait::async_trait;
use pingora::listeners::TlsAccept;
use pingora::listeners::tls::TlsSettings;
use pingora::protocols::tls::TlsRef;
use pingora::server::ShutdownWatch;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tracing::{info, warn};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::metrics::Tls;

/// How often the folder is looked at.
const LOOK: Duration = Duration::from_secs(2);

/// The certificates of a folder: `{name}.crt` and `{name}.key`, wildcards as `_.{domain}`.
#[derive(Debug)]
pub struct Certificates {
    folder: PathBuf,
    /// Name in the folder of the certificate for handshakes that match no other.
    fallback: String,
    loaded: ArcSwap<Loaded>,
    metrics: Tls,
}

#[derive(Debug)]
struct Loaded {
    by_name: HashMap<String, Arc<CertifiedKey>>,
    /// Unix time at which the first of them expires.
    expires_at: i64,
    stamps: Stamps,
}

/// Name, change time and size of each file: whether the folder changed.
type Stamps = Vec<(PathBuf, SystemTime, u64)>;

/// The name a client gave in its handshake, lower case; kept with the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsName(pub String);

struct KeepTlsName(Tls);

impl Certificates {
    /// Reads the folder; `domain` says which wildcard serves names that match no other.
    ///
    /// # Errors
    /// When a file cannot be read, or the wildcard is not there.
    pub fn load(folder: &Path, domain: &str, metrics: Tls) -> anyhow::Result<Arc<Self>> {
        let fallback = format!("_.{domain}");
        let loaded = read(folder, &fallback)?;
        metrics.expires_at.set(loaded.expires_at);
        Ok(Arc::new(Self { folder: folder.to_owned(), fallback, loaded: ArcSwap::from_pointee(loaded), metrics }))
    }

    /// Takes over what changes in the folder, until told to stop. A folder that cannot be read changes nothing.
    pub async fn follow(self: Arc<Self>, mut stop: ShutdownWatch) {
        let mut refused = Stamps::new();
        while tokio::time::timeout(LOOK, stop.wait_for(|stop| *stop)).await.is_err() {
            // Blocking is fine here: the duty has a thread of its own.
            let Ok(stamps) = stamps(&self.folder) else { continue };
            if stamps == self.loaded.load().stamps || stamps == refused {
                continue;
            }
            match read(&self.folder, &self.fallback) {
                Ok(loaded) => {
                    info!(certificates = loaded.by_name.len(), "took over changed certificates");
                    self.metrics.expires_at.set(loaded.expires_at);
                    self.loaded.store(Arc::new(loaded));
                }
                Err(error) => {
                    warn!(%error, "changed certificates cannot be read, keeping the last good ones");
                    refused = stamps;
                }
            }
        }
    }

    /// The settings of a listener that uses these certificates and speaks HTTP/2 and HTTP/1.1.
    ///
    /// # Errors
    /// When the framework refuses.
    pub fn listener(self: &Arc<Self>) -> anyhow::Result<TlsSettings> {
        let mut settings = TlsSettings::with_callbacks(Box::new(KeepTlsName(self.metrics.clone())))?;
        settings.set_cert_resolver(self.clone());
        settings.enable_h2();
        Ok(settings)
    }

    fn find(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let loaded = self.loaded.load();
        let name = name.map(str::to_ascii_lowercase);
        let exact = name.as_ref().and_then(|name| loaded.by_name.get(name));
        let wildcard = || {
            let (_, parent) = name.as_ref()?.split_once('.')?;
            loaded.by_name.get(&format!("_.{parent}"))
        };
        exact.or_else(wildcard).or_else(|| loaded.by_name.get(&self.fallback)).cloned()
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.find(hello.server_name())
    }
}

#[async_trait]
impl TlsAccept for KeepTlsName {
    async fn handshake_complete_callback(&self, tls: &TlsRef) -> Option<Arc<dyn Any + Send + Sync>> {
        self.0.handshakes.inc();
        let name = tls.server_name()?.to_ascii_lowercase();
        Some(Arc::new(TlsName(name)))
    }
}

fn stamps(folder: &Path) -> anyhow::Result<Stamps> {
    let mut stamps = Stamps::new();
    for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path();
        let facts = fs::metadata(&path)?;
        stamps.push((path, facts.modified()?, facts.len()));
    }
    stamps.sort();
    Ok(stamps)
}

fn read(folder: &Path, needed: &str) -> anyhow::Result<Loaded> {
    let stamps = stamps(folder)?;
    let mut by_name = HashMap::new();
    let mut expires_at = i64::MAX;
    for (path, ..) in &stamps {
        if path.extension().is_some_and(|extension| extension == "crt") {
            let name = path.file_stem().and_then(|name| name.to_str()).context("a certificate has no name")?;
            let pair = pair(path)?;
            expires_at = expires_at.min(expiry(&pair).with_context(|| format!("reading {}", path.display()))?);
            by_name.insert(name.to_ascii_lowercase(), Arc::new(pair));
        }
    }
    ensure!(by_name.contains_key(needed), "there is no certificate {needed}.crt in {}", folder.display());
    Ok(Loaded { by_name, expires_at, stamps })
}

fn pair(path: &Path) -> anyhow::Result<CertifiedKey> {
    let reading = || format!("reading {} and its key", path.display());
    let chain = CertificateDer::pem_file_iter(path).and_then(Iterator::collect).with_context(reading)?;
    let key = PrivateKeyDer::from_pem_file(path.with_extension("key")).with_context(reading)?;
    CertifiedKey::from_der(chain, key, &rustls::crypto::ring::default_provider()).with_context(reading)
}

/// Unix time at which a chain expires: that of whichever of its certificates does first.
fn expiry(pair: &CertifiedKey) -> anyhow::Result<i64> {
    let ends = pair.cert.iter().map(|certificate| {
        let (_, certificate) = X509Certificate::from_der(certificate).context("a certificate cannot be read")?;
        anyhow::Ok(certificate.validity().not_after.timestamp())
    });
    ends.collect::<Result<Vec<_>, _>>()?.into_iter().min().context("a chain is empty")
}
