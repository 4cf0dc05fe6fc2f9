//! The route table: which listener answers what.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use axum::Router;
use axum::middleware;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::clients::store::Store;
use crate::config::Secret;
use crate::state::State;

pub mod error;
pub mod internal;
pub mod invocations;
pub mod ping;

/// What everybody may ask.
pub fn public(state: State, store: Store) -> Router {
    let exports = invocations::Exports { state: state.clone(), store };
    let invocations = Router::new()
        .route("/invocations/exports/recent", get(invocations::recent))
        .route("/invocations/exports/{year}/{month}/{day}/{file}", get(invocations::show))
        // Auditors put a slash behind an address that has one.
        .route("//invocations/exports/{year}/{month}/{day}/{file}", get(invocations::show))
        .with_state(exports);
    Router::new().route("/ping", get(ping::show)).with_state(state).merge(invocations)
}

/// What only our own programs and operators may ask.
pub fn internal(state: State, credential: Secret) -> Router {
    let guarded = Router::new()
        .route("/metrics", get(internal::metrics))
        .route("/internal/principals/{kind}/{id}", get(internal::principal))
        // Everything above this line needs the credential.
        .layer(middleware::from_fn_with_state(Arc::new(credential), internal::demand_credential));
    Router::new().route("/health", get(ping::show)).merge(guarded).with_state(state)
}

/// Opens a port.
///
/// # Errors
/// When it cannot be opened.
pub async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("listening on {address}"))
}

/// Answers requests until the program stops, then finishes those in flight.
///
/// # Errors
/// When the listener fails.
pub async fn serve(listener: TcpListener, router: Router, stopping: CancellationToken) -> anyhow::Result<()> {
    axum::serve(listener, router).with_graceful_shutdown(stopping.cancelled_owned()).await.context("serving")
}
