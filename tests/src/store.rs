//! An S3 endpoint over a folder, with signatures checked, served from this process.

use std::path::Path;

use anyhow::Context;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tracing::warn;

use crate::private;
use crate::secrets::Secrets;

/// The one bucket.
pub const BUCKET: &str = "chutes";

/// A running object store; dropping it closes its port.
pub struct Store {
    /// Its address.
    pub endpoint: String,
    _server: JoinSet<()>,
}

impl Store {
    /// Serves the objects of a folder.
    ///
    /// # Errors
    /// When the port is taken or the folder cannot be used.
    pub async fn start(folder: &Path, port: u16, secrets: &Secrets) -> anyhow::Result<Self> {
        let objects = folder.join("store");
        private::make_folder(&objects.join(BUCKET))?;
        let files = s3s_fs::FileSystem::new(&objects).ok().context("opening the object store")?;
        let mut builder = S3ServiceBuilder::new(files);
        builder.set_auth(SimpleAuth::from_single(secrets.store_access_key.clone(), secrets.store_secret_key.clone()));
        let listener = TcpListener::bind(("127.0.0.1", port)).await.context("opening the object store's port")?;
        let mut server = JoinSet::new();
        server.spawn(serve(listener, builder.build()));
        Ok(Self { endpoint: format!("http://127.0.0.1:{port}"), _server: server })
    }
}

async fn serve(listener: TcpListener, service: S3Service) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => {
                    let service = service.clone();
                    connections.spawn(async move {
                        let builder = auto::Builder::new(TokioExecutor::new());
                        if let Err(error) = builder.serve_connection(TokioIo::new(socket), service).await {
                            warn!(%error, "a connection to the object store failed");
                        }
                    });
                }
                Err(error) => warn!(%error, "the object store could not accept a connection"),
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_without_a_signature_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let secrets = Secrets::of_folder(folder.path()).unwrap();
        let port = crate::ports::Ports::of_folder(folder.path()).unwrap().claim("store").unwrap();
        let store = Store::start(folder.path(), port, &secrets).await.unwrap();
        let client = crate::web::client(None).unwrap();
        let answer = client.put(format!("{}/{BUCKET}/object", store.endpoint)).body("text").send().await.unwrap();
        assert_eq!(answer.status(), 403);
    }
}
