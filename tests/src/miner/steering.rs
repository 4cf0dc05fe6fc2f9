//! The private port by which tests tell instances how to behave and read what they counted.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tracing::warn;

use super::faults::Behaviour;
use super::server::Instance;

const LARGEST_BODY: usize = 64 * 1024;

/// Serves `GET /ready`, and `GET`, `PUT` and `DELETE /instances/{port}`.
pub(super) async fn listen(listener: TcpListener, instances: Vec<Arc<Instance>>) {
    let instances: Arc<[Arc<Instance>]> = instances.into();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => {
                    let instances = Arc::clone(&instances);
                    connections.spawn(async move {
                        let service = service_fn(move |request| {
                            let instances = Arc::clone(&instances);
                            async move { Ok::<_, Infallible>(respond(&instances, request).await) }
                        });
                        // A test that hangs up is no news.
                        let _ = hyper::server::conn::http1::Builder::new()
                            .serve_connection(TokioIo::new(socket), service)
                            .await;
                    });
                }
                Err(error) => warn!(%error, "steering could not accept a connection"),
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn respond(instances: &[Arc<Instance>], request: Request<Incoming>) -> Response<Full<Bytes>> {
    if request.uri().path() == "/ready" {
        return Response::default();
    }
    let port = request.uri().path().strip_prefix("/instances/").and_then(|port| port.parse().ok());
    let Some(instance) = port.and_then(|port: u16| instances.iter().find(|instance| instance.port == port)) else {
        return status(StatusCode::NOT_FOUND);
    };
    if request.method() == Method::GET {
        return match serde_json::to_vec(&instance.counters()) {
            Ok(text) => Response::new(Full::new(text.into())),
            Err(_) => status(StatusCode::INTERNAL_SERVER_ERROR),
        };
    }
    if request.method() == Method::DELETE {
        instance.kill();
        return Response::default();
    }
    let body = Limited::new(request.into_body(), LARGEST_BODY).collect().await;
    match body.ok().and_then(|body| serde_json::from_slice::<Behaviour>(&body.to_bytes()).ok()) {
        Some(behaviour) => {
            instance.behave(behaviour);
            Response::default()
        }
        None => status(StatusCode::BAD_REQUEST),
    }
}

fn status(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::default();
    *response.status_mut() = status;
    response
}
