//! Answers a call in one piece: with a refusal or with what an instance gave.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, StatusCode};
use protocol::headers;
use protocol::ids::CallId;

use super::downstream::{Downstream, Gone, Head};
use super::drain::drain;
use crate::refusal::{Refusal, Standing};

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// Fields of an instance's answer that reach the client; its content type is decided elsewhere.
const RELAYED: [HeaderName; 3] = [CONTENT_DISPOSITION, CACHE_CONTROL, RETRY_AFTER];

/// What stands on every answer to one call.
#[derive(Clone, Copy, Debug)]
pub struct Stamp {
    /// Which call it was.
    pub call: CallId,
    /// Where the caller's limit stands, once it was taken.
    pub standing: Option<Standing>,
}

/// Fields of an answer.
pub type Fields = Vec<(HeaderName, HeaderValue)>;

impl Stamp {
    /// The fields that every answer to this call has.
    #[must_use]
    pub fn fields(&self) -> Fields {
        let call = HeaderValue::from_str(&self.call.to_string()).expect("a UUID is a header value");
        let mut fields = vec![(HeaderName::from_static(headers::INVOCATION_ID), call)];
        fields.extend(self.limits());
        fields
    }

    /// Where the caller's limit stands, as fields.
    pub(super) fn limits(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> + use<> {
        let named = |standing: Standing| {
            [(LIMIT, standing.limit.into()), (REMAINING, standing.remaining.into()), (RESET, standing.reset.into())]
        };
        self.standing.map(named).into_iter().flatten()
    }
}

/// Tells the client why it is turned away, and lets it read that.
pub async fn refuse(client: &mut impl Downstream, refusal: &Refusal, stamp: Stamp) {
    let stamp = Stamp { standing: refusal.standing().or(stamp.standing), ..stamp };
    let mut fields = stamp.fields();
    if let Some(wait) = refusal.retry_after() {
        fields.push((RETRY_AFTER, wait.as_secs().into()));
    }
    if let Some(allowed) = refusal.allowed_method() {
        fields.push((http::header::ALLOW, HeaderValue::from_static(allowed)));
    }
    fields.push((CONTENT_TYPE, HeaderValue::from_static("application/json")));
    // A client that is gone has nothing to drain.
    if whole(client, refusal.status(), fields, refusal.body().to_json().into()).await.is_ok() {
        drain(client).await;
    }
}

/// Sends an answer whose body is at hand.
///
/// # Errors
/// When the client went away.
pub async fn whole(client: &mut impl Downstream, status: StatusCode, fields: Fields, body: Bytes) -> Result<(), Gone> {
    client.begin(Head { status, fields, length: Some(body.len()) }).await?;
    finish_whole(client, body).await
}

/// Sends the body of such an answer, whose head is sent.
///
/// # Errors
/// When the client went away.
pub async fn finish_whole(client: &mut impl Downstream, body: Bytes) -> Result<(), Gone> {
    if !body.is_empty() {
        client.write(body).await?;
    }
    client.end().await
}

/// What a client sees of the fields an instance sent; values that are no header values are left out.
pub fn relayed<'a>(fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> Fields {
    let mut kept = Fields::new();
    for (name, value) in fields {
        let Some(name) = RELAYED.iter().find(|relayed| name.eq_ignore_ascii_case(relayed.as_str())) else { continue };
        if let Ok(value) = HeaderValue::from_str(value) {
            kept.push((name.clone(), value));
        }
    }
    kept
}

/// A content type out of an instance's mouth, or the one that is true of any bytes.
#[must_use]
pub fn content_type(text: &str) -> (HeaderName, HeaderValue) {
    let unknown = HeaderValue::from_static("application/octet-stream");
    (CONTENT_TYPE, HeaderValue::from_str(text).ok().filter(|value| !value.is_empty()).unwrap_or(unknown))
}
