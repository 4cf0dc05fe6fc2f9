//! Serves the internal listener: health to anybody, metrics to whoever has the credential.

use std::sync::Arc;

use async_trait::async_trait;
use http::{Method, Response, StatusCode, header};
use pingora::apps::http_app::ServeHttp;
use pingora::protocols::http::ServerSession;
use prometheus::TextEncoder;
use subtle::ConstantTimeEq;
use tracing::error;

use crate::config::Secret;
use crate::metrics::Metrics;

/// The internal listener's only application.
pub struct Internal {
    credential: Secret,
    metrics: Arc<Metrics>,
    missing: Box<dyn Fn() -> Option<&'static str> + Send + Sync>,
}

impl Internal {
    /// `missing` says what is missing to serve calls.
    pub fn new(
        credential: Secret,
        metrics: Arc<Metrics>,
        missing: impl Fn() -> Option<&'static str> + Send + Sync + 'static,
    ) -> Self {
        Self { credential, metrics, missing: Box::new(missing) }
    }

    fn answer(&self, method: &Method, path: &str, authorization: Option<&[u8]>) -> (StatusCode, String) {
        if method != Method::GET && method != Method::HEAD {
            return (StatusCode::METHOD_NOT_ALLOWED, "only GET\n".into());
        }
        match path {
            "/health" => match (self.missing)() {
                None => (StatusCode::OK, "ok\n".into()),
                Some(missing) => (StatusCode::SERVICE_UNAVAILABLE, format!("{missing}\n")),
            },
            "/metrics" if self.knows(authorization) => self.metrics_text(),
            "/metrics" => (StatusCode::UNAUTHORIZED, "the credential is missing or wrong\n".into()),
            _ => (StatusCode::NOT_FOUND, "not found\n".into()),
        }
    }

    fn knows(&self, authorization: Option<&[u8]>) -> bool {
        let presented = authorization.and_then(|value| value.strip_prefix(b"Bearer ")).unwrap_or_default();
        presented.ct_eq(self.credential.reveal().as_bytes()).into()
    }

    fn metrics_text(&self) -> (StatusCode, String) {
        match TextEncoder::new().encode_to_string(&self.metrics.registry.gather()) {
            Ok(text) => (StatusCode::OK, text),
            Err(error) => {
                error!(%error, "metrics cannot be written");
                (StatusCode::INTERNAL_SERVER_ERROR, "metrics cannot be written\n".into())
            }
        }
    }
}

#[async_trait]
impl ServeHttp for Internal {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        let request = session.req_header();
        let authorization = request.headers.get(header::AUTHORIZATION).map(|value| value.as_bytes());
        let (status, text) = self.answer(&request.method, request.uri.path(), authorization);
        let body = if request.method == Method::HEAD { Vec::new() } else { text.into_bytes() };
        Response::builder()
            .status(status)
            .header(header::CONTENT_TYPE, "text/plain; charset=utf-8")
            .header(header::CONTENT_LENGTH, body.len())
            .body(body)
            .expect("a number and constants make valid headers")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn internal(missing: Option<&'static str>) -> Internal {
        Internal::new("right".parse().unwrap(), Arc::new(Metrics::new().unwrap()), move || missing)
    }

    #[test]
    fn health_is_open_and_says_what_is_missing() {
        assert_eq!(internal(None).answer(&Method::GET, "/health", None).0, StatusCode::OK);
        let missing = internal(Some("directory")).answer(&Method::GET, "/health", None);
        assert_eq!(missing, (StatusCode::SERVICE_UNAVAILABLE, "directory\n".into()));
    }

    #[test]
    fn metrics_need_the_whole_credential() {
        let internal = internal(None);
        for wrong in [None, Some(&b"Bearer "[..]), Some(b"Bearer righ"), Some(b"Bearer rightx"), Some(b"right")] {
            assert_eq!(internal.answer(&Method::GET, "/metrics", wrong).0, StatusCode::UNAUTHORIZED);
        }
        let (status, text) = internal.answer(&Method::GET, "/metrics", Some(b"Bearer right"));
        assert_eq!(status, StatusCode::OK);
        assert!(text.contains("chutes_gateway_calls_in_flight 0"));
    }
}
