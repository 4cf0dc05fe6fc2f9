//! What gateways and operators ask on the internal listener.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::AUTHORIZATION;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use protocol::credential::authorization_token;
use subtle::ConstantTimeEq;

use crate::config::Secret;
use crate::state;

/// Lets a request pass that carries the credential of the internal listeners.
pub async fn demand_credential(State(credential): State<Arc<Secret>>, request: Request, next: Next) -> Response {
    let given =
        request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(authorization_token);
    let held = credential.reveal().as_bytes();
    if given.is_some_and(|given| bool::from(given.as_bytes().ct_eq(held))) {
        next.run(request).await
    } else {
        StatusCode::UNAUTHORIZED.into_response()
    }
}

/// All metrics as Prometheus reads them.
pub async fn metrics(State(state): State<state::State>) -> Result<String, StatusCode> {
    state.metrics.to_text().map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
}
