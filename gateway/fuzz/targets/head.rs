//! A request's head on its way to a service: nothing in it says what only the edge may say.

use std::net::{IpAddr, Ipv4Addr};

use gateway::forward::{self, Client};
use gateway::framing;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderName, HeaderValue};
use pingora::http::RequestHeader;
use protocol::headers;

/// Whom the edge sees.
const CLIENT: Client = Client { address: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)), tls: true };

/// `data` is a head: a line with method and target, then a line for each field.
pub(crate) fn run(data: &[u8]) {
    let Some(mut request) = parse(data) else { return };
    if framing::check(&request, Some(data)).is_err() {
        return;
    }
    let one_length = request.headers.get_all(CONTENT_LENGTH).iter().count() <= 1;
    assert!(one_length && request.headers.get_all(TRANSFER_ENCODING).iter().count() <= 1, "two lengths pass");
    if forward::rewrite_request(&mut request, CLIENT).is_err() {
        return;
    }
    for (name, value) in &request.headers {
        let name = name.as_str();
        match name {
            headers::HOTKEY | headers::SIGNATURE | headers::NONCE => {}
            "x-forwarded-for" | "x-real-ip" => assert_eq!(value, "127.0.0.1"),
            "x-forwarded-proto" => assert_eq!(value, "https"),
            "x-forwarded-host" => assert_eq!(Some(value), request.headers.get("host")),
            _ => {
                assert!(!name.starts_with(headers::PREFIX), "{name} passes");
                assert!(!name.starts_with("x-forwarded-") && name != "forwarded", "{name} passes");
            }
        }
        assert!(value.as_bytes().iter().all(|byte| !matches!(byte, b'\r' | b'\n' | 0)), "a line end in {name}");
    }
    let path = request.uri.path();
    assert!(!path.contains("//"), "{path} keeps a run of slashes");
    assert!(request.raw_path().iter().all(|byte| *byte > b' ' && *byte != 0x7f), "a control byte in the target");
}

/// Reads a head as loosely as it can be read.
fn parse(data: &[u8]) -> Option<RequestHeader> {
    let mut lines = data.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let mut words = lines.next()?.split(|byte| *byte == b' ');
    let mut request = RequestHeader::build(words.next()?, words.next()?, None).ok()?;
    for line in lines.take_while(|line| !line.is_empty()) {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(&line[..colon]).ok()?;
        request.append_header(name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?).ok()?;
    }
    Some(request)
}
