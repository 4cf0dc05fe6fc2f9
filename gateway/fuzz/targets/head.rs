//! A request's head on its way to a service: what is written says one thing, and nothing that only the edge may say.

use std::net::{IpAddr, Ipv4Addr};

use gateway::forward::{self, Client};
use gateway::framing;
use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{HeaderName, HeaderValue, Version};
use pingora::http::RequestHeader;
use pingora::protocols::http::v1::client::http_req_header_to_wire;
use protocol::headers;

/// Whom the edge sees.
const CLIENT: Client = Client { address: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)), tls: true };

/// Fields in a head at most.
const FIELDS: usize = 100;

type Field = (String, Vec<u8>);

/// `data` is a head as it comes over HTTP/1, and stands for the same one over HTTP/2.
pub(crate) fn run(data: &[u8]) {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let Some((head, length)) = parse(data, &mut fields) else { return };
    let Some(request) = read(&head) else { return };
    forwarded(request.clone(), Some(&data[..length]));
    forwarded(request, None);
}

/// What passes is written as the framework does it, and read as a service does it.
fn forwarded(mut request: RequestHeader, raw: Option<&[u8]>) {
    // As the framework does it: over HTTP/1 an encoding takes the place of a length.
    if raw.is_some() && request.headers.contains_key(TRANSFER_ENCODING) {
        request.remove_header(&CONTENT_LENGTH);
    }
    if framing::check(&request, raw).is_err() || forward::rewrite_request(&mut request, CLIENT).is_err() {
        return;
    }
    request.set_version(Version::HTTP_11);
    let wire = http_req_header_to_wire(&request).expect("what passes can be written");
    let mut fields = [httparse::EMPTY_HEADER; FIELDS + 8];
    let (head, length) = parse(&wire, &mut fields).expect("what is written is a head");
    assert_eq!(length, wire.len(), "two heads");
    assert_eq!((head.method, head.version), (Some(request.method.as_str()), Some(1)));
    let target = head.path.expect("a head has a target");
    assert!(target.starts_with('/') && !target.split('?').next().is_some_and(|path| path.contains("//")), "{target}");
    let written = request.headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()));
    let seen = head.headers.iter().map(|field| (field.name.to_ascii_lowercase(), field.value.to_vec()));
    let (written, seen) = (sorted(written), sorted(seen));
    assert_eq!(written, seen, "a service reads other fields");
    check(&seen);
}

/// One framing, and of the edge's words only its own.
fn check(fields: &[Field]) {
    let all = |name: &str| fields.iter().filter(|(found, _)| found == name).map(|(_, value)| &value[..]).collect();
    let lengths: Vec<&[u8]> = all(CONTENT_LENGTH.as_str());
    let encodings: Vec<&[u8]> = all(TRANSFER_ENCODING.as_str());
    assert!(lengths.len() + encodings.len() <= 1, "two lengths");
    assert!(lengths.iter().all(|length| !length.is_empty() && length.iter().all(u8::is_ascii_digit)), "no length");
    assert!(encodings.iter().all(|encoding| encoding.eq_ignore_ascii_case(b"chunked")), "another encoding");
    for (name, value) in fields {
        match name.as_str() {
            headers::HOTKEY | headers::SIGNATURE | headers::NONCE => {}
            "x-forwarded-for" | "x-real-ip" => assert_eq!(value, b"127.0.0.1"),
            "x-forwarded-proto" => assert_eq!(value, b"https"),
            "x-forwarded-host" => assert_eq!(Some(&value[..]), all(HOST.as_str()).first().copied()),
            name => {
                let ours = name.starts_with(headers::PREFIX) || name.starts_with("x-forwarded-") || name == "forwarded";
                assert!(!ours, "{name} passes");
            }
        }
    }
    for name in ["x-forwarded-for", "x-real-ip", "x-forwarded-proto"] {
        assert_eq!(all(name).len(), 1, "{name} is not said once");
    }
}

fn parse<'a, 'b>(
    bytes: &'b [u8],
    fields: &'a mut [httparse::Header<'b>],
) -> Option<(httparse::Request<'a, 'b>, usize)> {
    let mut head = httparse::Request::new(fields);
    match head.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => Some((head, length)),
        Ok(httparse::Status::Partial) | Err(_) => None,
    }
}

/// What the framework makes of a head.
fn read(head: &httparse::Request<'_, '_>) -> Option<RequestHeader> {
    let mut request = RequestHeader::build(head.method?, head.path?.as_bytes(), None).ok()?;
    for field in head.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        request.append_header(name, HeaderValue::from_bytes(field.value).ok()?).ok()?;
    }
    Some(request)
}

fn sorted(fields: impl Iterator<Item = Field>) -> Vec<Field> {
    let mut fields: Vec<Field> = fields.collect();
    fields.sort();
    fields
}
