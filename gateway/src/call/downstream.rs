//! The client's side of a call, as the attempt loop sees it.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING};
use http::{HeaderName, HeaderValue, Method, StatusCode, Version};
use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;
use tracing::debug;

use super::http2::Body;
use super::socket;
use crate::refusal::Refusal;
use crate::{edge, framing};

/// How often the connection of a silent client is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// The client went away, or does not take what it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

/// Why the next piece of a request body does not come.
#[derive(Clone, Debug, PartialEq)]
pub enum Unread {
    /// The client went away.
    Gone,
    /// The client was silent for too long, or sent what is no body.
    Refused(Refusal),
}

/// The head of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Head {
    /// Its status.
    pub status: StatusCode,
    /// Its fields, without framing.
    pub fields: Vec<(HeaderName, HeaderValue)>,
    /// The length of its body, if it is known before the body is.
    pub length: Option<usize>,
}

/// How much of what was written of an answer's body has left this process: that, its client may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Nothing of it.
    None,
    /// Some of it, perhaps.
    Part,
    /// All of it.
    All,
}

/// A client that waits for an answer.
pub trait Downstream: Send {
    /// The next piece of the request body, none at its end.
    fn piece(&mut self) -> impl Future<Output = Result<Option<Bytes>, Unread>> + Send;
    /// Whether the whole request body was read.
    fn is_read(&mut self) -> bool;
    /// Whether the client sends its body only after a `100 Continue`, and has not got one.
    fn waits_for_continue(&self) -> bool;
    /// Asks for the body.
    fn ask(&mut self) -> impl Future<Output = Result<(), Gone>> + Send;
    /// Ends when the client goes away, not before; may be dropped and called again.
    fn gone(&mut self) -> impl Future<Output = ()> + Send;
    /// Whether the client is known to have gone away: what is written then is only kept for when it asks again.
    fn has_left(&self) -> bool {
        false
    }
    /// Begins the answer.
    fn begin(&mut self, head: Head) -> impl Future<Output = Result<(), Gone>> + Send;
    /// Sends a part of its body.
    fn write(&mut self, piece: Bytes) -> impl Future<Output = Result<(), Gone>> + Send;
    /// Sends a comment between two events, which is no part of the body.
    fn remark(&mut self, comment: Bytes) -> impl Future<Output = Result<(), Gone>> + Send {
        self.write(comment)
    }
    /// Waits until all that was sent has left this process: the client gets it then even if this process dies.
    fn sent(&mut self) -> impl Future<Output = Result<(), Gone>> + Send;
    /// How much of what was written while the client was there has left this process by now.
    fn reach(&mut self) -> Reach;
    /// Ends the answer.
    fn end(&mut self) -> impl Future<Output = Result<(), Gone>> + Send;
    /// Breaks an answer off, so that the client notices.
    fn cut(&mut self) -> impl Future<Output = ()> + Send;
    /// Closes the connection after this answer instead of waiting for another request.
    fn close_after(&mut self);
}

/// A client on a connection of the proxy server.
pub struct Client<'a> {
    session: &'a mut ServerSession,
    silence: Duration,
    asked: bool,
    /// Whether a write failed over HTTP/1.1: a part of it may have left.
    torn: bool,
    /// The body of the answer, once it is begun over HTTP/2.
    body: Option<Body>,
}

impl<'a> Client<'a> {
    /// A client that may be silent for so long while it sends its body.
    pub fn new(session: &'a mut ServerSession, silence: Duration) -> Self {
        Self { session, silence, asked: false, torn: false, body: None }
    }
}

impl Downstream for Client<'_> {
    async fn piece(&mut self) -> Result<Option<Bytes>, Unread> {
        match tokio::time::timeout(self.silence, self.session.read_request_body()).await {
            Ok(Ok(piece)) => Ok(piece),
            Ok(Err(error)) => {
                debug!(%error, "request body broke off");
                // Where this body ends is not known, so nothing behind it can be read.
                self.session.set_keepalive(None);
                Err(framing::refusal(&error).map_or(Unread::Gone, Unread::Refused))
            }
            Err(_) => Err(Unread::Refused(Refusal::BodyTimeout)),
        }
    }

    fn is_read(&mut self) -> bool {
        self.session.is_body_done()
    }

    fn waits_for_continue(&self) -> bool {
        let request = self.session.req_header();
        let expects =
            request.headers.get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        expects && !self.asked && request.version == Version::HTTP_11
    }

    async fn ask(&mut self) -> Result<(), Gone> {
        self.asked = true;
        self.session.write_continue_response().await.map_err(|_| Gone)
    }

    async fn gone(&mut self) {
        if let Some(body) = &mut self.body {
            return body.left().await;
        }
        let socket = self.session.as_http1().and_then(|session| session.digest().socket_digest.clone());
        // After the first byte of a next request the session reads no more, and so does not see the end behind it; the
        // kernel does, except that of a TLS session whose connection stays open: that shows when an answer is written.
        let left = async {
            let Some(socket) = socket else { return std::future::pending().await };
            while !socket::is_left(&socket) {
                tokio::time::sleep(LOOK).await;
            }
        };
        // Bytes of a next request are kept for it; only an error says that the client is gone.
        let ended = async { while self.session.read_body_or_idle(true).await.is_ok() {} };
        tokio::select! {
            () = left => {}
            () = ended => {}
        }
    }

    async fn begin(&mut self, head: Head) -> Result<(), Gone> {
        let request = self.session.req_header();
        let (version, bodiless) = (request.version, request.method == Method::HEAD);
        let mut answer = ResponseHeader::build(head.status, Some(head.fields.len() + 2)).map_err(|_| Gone)?;
        for (name, value) in head.fields {
            answer.append_header(name, value).map_err(|_| Gone)?;
        }
        match head.length {
            Some(length) => answer.insert_header(CONTENT_LENGTH, length).map_err(|_| Gone)?,
            None if version == Version::HTTP_11 && !bodiless => {
                answer.insert_header(TRANSFER_ENCODING, "chunked").map_err(|_| Gone)?;
            }
            None => {}
        }
        self.session.write_response_header(Box::new(answer)).await.map_err(|_| Gone)?;
        if self.session.is_http2() {
            self.body = Some(Body::of(self.session)?);
        }
        Ok(())
    }

    async fn write(&mut self, piece: Bytes) -> Result<(), Gone> {
        if self.session.req_header().method == Method::HEAD {
            return Ok(());
        }
        match &mut self.body {
            Some(body) => body.write(piece).await,
            None => {
                let written = self.session.write_response_body(piece, false).await;
                if written.is_err() {
                    self.torn = true;
                    self.session.set_keepalive(None);
                    edge::answer_is_torn(self.session);
                }
                written.map_err(|_| Gone)
            }
        }
    }

    async fn sent(&mut self) -> Result<(), Gone> {
        match &mut self.body {
            Some(body) => body.sent().await,
            // A write ends when the kernel has it.
            None => Ok(()),
        }
    }

    fn reach(&mut self) -> Reach {
        match &mut self.body {
            Some(body) => body.reach(),
            None if self.torn => Reach::Part,
            None => Reach::All,
        }
    }

    async fn end(&mut self) -> Result<(), Gone> {
        if let Some(body) = &mut self.body {
            return body.end();
        }
        self.session.finish_body().await.map_err(|_| Gone)
    }

    async fn cut(&mut self) {
        self.session.set_keepalive(None);
        self.session.shutdown().await;
    }

    fn close_after(&mut self) {
        self.session.set_keepalive(None);
    }
}
