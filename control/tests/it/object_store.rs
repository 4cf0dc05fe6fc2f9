//! A private S3 endpoint over a folder, with signatures checked.

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use control::clients::store::Store;

const BUCKET: &str = "exports";
const ACCESS_KEY: &str = "test-access";
const SECRET_KEY: &str = "test-secret";

/// A running object store; dropping it closes its port.
pub(crate) struct ObjectStore {
    endpoint: String,
    folder: TempDir,
    _server: JoinSet<()>,
}

impl ObjectStore {
    /// Starts one on a free port of the loopback.
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(BUCKET)).unwrap();
        let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(folder.path()).unwrap());
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let mut server = JoinSet::new();
        server.spawn(serve(listener, builder.build()));
        Self { endpoint, folder, _server: server }
    }

    /// A client of it.
    pub(crate) fn client(&self) -> Store {
        Store::new(&self.endpoint, BUCKET, "auto", ACCESS_KEY, SECRET_KEY)
    }

    /// The bytes of an object; none if it is not there.
    pub(crate) fn object(&self, key: &str) -> Option<Vec<u8>> {
        std::fs::read(self.folder.path().join(BUCKET).join(key)).ok()
    }
}

async fn serve(listener: TcpListener, service: S3Service) {
    let mut connections = JoinSet::new();
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        let service = service.clone();
        connections.spawn(async move {
            // A client that goes away is no failure of the test.
            let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), service).await;
        });
    }
}
