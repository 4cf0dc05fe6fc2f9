//! What gateways and operators ask on the internal listener.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::http::header::AUTHORIZATION;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use protocol::credential::authorization_token;
use serde::Serialize;
use serde_json::value::RawValue;
use subtle::ConstantTimeEq;
use tracing::warn;

use crate::config::Secret;
use crate::db::outbox::Change;
use crate::{db, state};

/// A principal, with the fields of its Redis hash.
#[derive(Serialize)]
pub struct Principal {
    v: u64,
    d: Box<RawValue>,
}

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

/// Shows a principal to a gateway that does not find it in Redis.
pub async fn principal(
    State(state): State<state::State>,
    Path((kind, id)): Path<(String, String)>,
) -> Result<Json<Principal>, StatusCode> {
    let wanted = Change::parse(&kind, &id).ok_or(StatusCode::NOT_FOUND)?;
    let found = db::principals::find(&state.db, &wanted, state.clock.now()).await.map_err(|error| {
        warn!(%error, kind = wanted.kind(), "cannot look up a principal");
        StatusCode::SERVICE_UNAVAILABLE
    })?;
    let posting = found.ok_or(StatusCode::NOT_FOUND)?;
    let entry = RawValue::from_string(posting.entry).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok(Json(Principal { v: posting.version, d: entry }))
}
