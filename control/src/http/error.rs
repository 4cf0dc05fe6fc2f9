//! What a route answers when it cannot do what was asked.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tracing::error;

/// A refusal, with what the client reads.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The request makes no sense.
    #[error("{0}")]
    BadRequest(String),
    /// Not there, or not the caller's.
    #[error("{0}")]
    NotFound(String),
    /// Postgres does not do its part.
    #[error("database unavailable")]
    Database(#[from] sqlx::Error),
    /// The object store does not do its part.
    #[error("object store unavailable")]
    Store(#[source] anyhow::Error),
    /// A fault of ours.
    #[error("internal error")]
    Internal(#[source] anyhow::Error),
}

impl ApiError {
    /// The only place that knows the status of a refusal.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Database(_) | Self::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        match &self {
            Self::BadRequest(_) | Self::NotFound(_) => {}
            Self::Database(source) => error!(error = %source, "a route failed on postgres"),
            Self::Store(source) => error!(error = format!("{source:#}"), "a route failed on the object store"),
            Self::Internal(source) => error!(error = format!("{source:#}"), "a route failed"),
        }
        (self.status(), Json(json!({ "detail": self.to_string() }))).into_response()
    }
}

/// Answers a path that no route has.
pub async fn no_route() -> ApiError {
    ApiError::NotFound("Not Found".into())
}
