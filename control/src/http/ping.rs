//! Says whether this process can do its work.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tokio::time::timeout;
use tracing::warn;

use crate::{db, state};

/// How long Postgres may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Answers `pong` as long as Postgres answers.
pub async fn show(State(state): State<state::State>) -> Response {
    let reason = match timeout(PATIENCE, db::ping(&state.db)).await {
        Ok(Ok(())) => return Json(json!({ "message": "pong" })).into_response(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "no answer in time".to_owned(),
    };
    warn!(error = reason, "postgres does not answer");
    let body = Json(json!({ "detail": "Database connectivity problems" }));
    (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
}
