//! nginx and HAProxy before the same kind of service, to see what others make of the same bytes.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpStream;

use super::service::Service;
use crate::ports::free_port;

/// Another proxy, and the service behind it.
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    pub(crate) service: Service,
    process: Child,
    _folder: TempDir,
}

impl Peer {
    pub(crate) async fn nginx() -> Self {
        let service = Service::start().await;
        let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
        let configuration = format!(
            "daemon off; master_process off; pid {0}/pid; error_log {0}/errors;
             events {{ worker_connections 256; }}
             http {{
                 access_log off; client_body_temp_path {0}/body; proxy_temp_path {0}/proxy;
                 fastcgi_temp_path {0}/fastcgi; uwsgi_temp_path {0}/uwsgi; scgi_temp_path {0}/scgi;
                 server {{
                     listen 127.0.0.1:{port};
                     location / {{
                         proxy_pass http://{1}; proxy_http_version 1.1; proxy_set_header Connection \"\";
                         proxy_set_header Host $http_host; proxy_request_buffering off; proxy_buffering off;
                     }}
                 }}
             }}",
            folder.path().display(),
            service.address,
        );
        let file = write(folder.path(), &configuration);
        Self::start("nginx", "/usr/sbin/nginx", &["-c", &file], port, service, folder).await
    }

    pub(crate) async fn haproxy() -> Self {
        let service = Service::start().await;
        let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
        let configuration = format!(
            "global\n  maxconn 256\ndefaults\n  mode http\n  timeout connect 2s\n  timeout client 2s\n  timeout server 2s\n\
             frontend edge\n  bind 127.0.0.1:{port}\n  default_backend service\n\
             backend service\n  server one {}\n",
            service.address,
        );
        let file = write(folder.path(), &configuration);
        Self::start("haproxy", "/usr/sbin/haproxy", &["-db", "-f", &file], port, service, folder).await
    }

    async fn start(
        name: &'static str,
        program: &str,
        arguments: &[&str],
        port: u16,
        service: Service,
        folder: TempDir,
    ) -> Self {
        let output = || std::fs::File::create(folder.path().join("output")).unwrap();
        let process = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(output())
            .stderr(output())
            .spawn()
            .unwrap_or_else(|error| panic!("{program} is among the packages that tests need: {error}"));
        let address = ([127, 0, 0, 1], port).into();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(address).await.is_err() {
            assert!(tokio::time::Instant::now() < deadline, "{name} does not listen");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Self { address, service, process, _folder: folder }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn write(folder: &Path, configuration: &str) -> String {
    let file = folder.join("configuration");
    std::fs::write(&file, configuration).unwrap();
    file.display().to_string()
}
