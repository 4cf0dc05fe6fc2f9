//! Where a request goes, by the name it was sent to.

use std::borrow::Cow;
use std::net::{Ipv4Addr, Ipv6Addr};

use http::{HeaderMap, Uri, header};
use protocol::slug::Slug;

use crate::refusal::Refusal;

pub mod cord;
pub mod query;

/// The longest name DNS allows.
const LONGEST_NAME: usize = 253;

/// What serves a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The developers' API. `POST /chutes/{id}/{path}` on it is a call as well: it becomes a target of its own, told
    /// apart here by method and path, when that API is served.
    Api,
    /// The image registry.
    Registry,
    /// The miners' socket.
    Ws,
    /// The public event socket.
    Events,
    /// Any LLM chute, chosen by the body's `model`.
    Llm,
    /// Any embedding chute, chosen by the body's `model`.
    Embed,
    /// Any diffusion chute, chosen by the body's `model`.
    Image,
    /// The chute of that slug, if there is one.
    Chute(Slug),
}

/// The names this edge answers to: a domain and the labels under it.
#[derive(Clone, Debug)]
pub struct Hosts {
    domain: String,
}

/// A name out of a request, lower case, without port and final dot.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Name {
    Address,
    Host(String),
}

/// Where a name stands towards the domain.
#[derive(Debug, PartialEq, Eq)]
enum Place<'a> {
    /// Somewhere else, or the bare domain.
    Outside,
    /// `{label}.{domain}`, which the wildcard certificate covers.
    Label(&'a str),
    /// More labels than one.
    Deeper,
}

impl Hosts {
    /// The names under a domain.
    #[must_use]
    pub fn new(domain: &str) -> Self {
        Self { domain: domain.trim_end_matches('.').to_ascii_lowercase() }
    }

    /// What serves a request with this TLS server name (none: plain HTTP, or a client that sent none).
    ///
    /// # Errors
    /// [`Refusal::BadRequest`] without one readable host, [`Refusal::Misdirected`] when the TLS name is for another
    /// one, [`Refusal::UnknownChute`] for a name under the domain that can be none of ours.
    pub fn target(&self, server_name: Option<&str>, uri: &Uri, headers: &HeaderMap) -> Result<Target, Refusal> {
        let host = requested(uri, headers)?;
        if let Some(server_name) = server_name {
            self.check_server_name(server_name, &host)?;
        }
        let Name::Host(host) = &host else { return Ok(Target::Api) };
        match self.place(host) {
            Place::Outside => Ok(Target::Api),
            Place::Deeper => Err(Refusal::UnknownChute),
            Place::Label(label) => match label {
                "api" => Ok(Target::Api),
                "registry" => Ok(Target::Registry),
                "ws" => Ok(Target::Ws),
                "events" => Ok(Target::Events),
                "llm" => Ok(Target::Llm),
                "embed" => Ok(Target::Embed),
                "image" => Ok(Target::Image),
                slug => Slug::parse(slug).map(Target::Chute).map_err(|_| Refusal::UnknownChute),
            },
        }
    }

    /// HTTP/2 clients send requests for any name that the certificate covers over one connection, and nothing else.
    fn check_server_name(&self, server_name: &str, host: &Name) -> Result<(), Refusal> {
        let (Ok(Name::Host(server_name)), Name::Host(host)) = (read(server_name.as_bytes()), host) else {
            return Err(Refusal::Misdirected);
        };
        let covered = |name: &str| matches!(self.place(name), Place::Label(_));
        if server_name == *host || (covered(&server_name) && covered(host)) {
            return Ok(());
        }
        Err(Refusal::Misdirected)
    }

    fn place<'a>(&self, host: &'a str) -> Place<'a> {
        match host.strip_suffix(&self.domain).and_then(|rest| rest.strip_suffix('.')) {
            None => Place::Outside,
            Some(labels) if labels.contains('.') => Place::Deeper,
            Some(label) => Place::Label(label),
        }
    }
}

/// The path with each run of slashes made one.
#[must_use]
pub fn merge_slashes(path: &str) -> Cow<'_, str> {
    if !path.contains("//") {
        return Cow::Borrowed(path);
    }
    let mut merged = String::with_capacity(path.len());
    for character in path.chars() {
        if character != '/' || !merged.ends_with('/') {
            merged.push(character);
        }
    }
    Cow::Owned(merged)
}

/// The one name a request is for: the URI's authority (HTTP/2, absolute form), the `Host` header, or both alike.
fn requested(uri: &Uri, headers: &HeaderMap) -> Result<Name, Refusal> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let header = hosts.next().map(|value| read(value.as_bytes())).transpose()?;
    let authority = uri.authority().map(|authority| read(authority.as_str().as_bytes())).transpose()?;
    if hosts.next().is_some() {
        return Err(Refusal::BadRequest("more than one Host header".into()));
    }
    match (authority, header) {
        (Some(authority), Some(header)) if authority != header => {
            Err(Refusal::BadRequest("the Host header is not the request's authority".into()))
        }
        (Some(name), _) | (None, Some(name)) => Ok(name),
        (None, None) => Err(Refusal::BadRequest("no Host header".into())),
    }
}

/// Reads `name[:port]`, `1.2.3.4[:port]` or `[v6][:port]`.
fn read(authority: &[u8]) -> Result<Name, Refusal> {
    let malformed = || Refusal::BadRequest("the Host header is not a host".into());
    let text = std::str::from_utf8(authority).map_err(|_| malformed())?;
    if let Some(rest) = text.strip_prefix('[') {
        let (address, port) = rest.split_once(']').ok_or_else(malformed)?;
        let port = if port.is_empty() { Some("") } else { port.strip_prefix(':') };
        let good = address.parse::<Ipv6Addr>().is_ok() && port.is_some_and(is_port);
        return if good { Ok(Name::Address) } else { Err(malformed()) };
    }
    let (name, port) = text.split_once(':').unwrap_or((text, ""));
    let name = name.strip_suffix('.').unwrap_or(name);
    let label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    if !is_port(port) || name.len() > LONGEST_NAME || !name.split('.').all(label) {
        return Err(malformed());
    }
    if name.parse::<Ipv4Addr>().is_ok() {
        return Ok(Name::Address);
    }
    Ok(Name::Host(name.to_ascii_lowercase()))
}

fn is_port(text: &str) -> bool {
    text.is_empty() || (text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests;
