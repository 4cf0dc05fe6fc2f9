//! Heads that pass and heads that do not.

use super::*;

fn head(method: &str, target: &str, fields: &[(&'static str, &str)]) -> RequestHeader {
    let mut request = RequestHeader::build(method, target.as_bytes(), None).unwrap();
    for (name, value) in fields {
        request.append_header(*name, *value).unwrap();
    }
    request
}

fn verdict(target: &str, fields: &[(&'static str, &str)]) -> Result<(), Unclear> {
    let mut raw = format!("POST {target} HTTP/1.1\r\n");
    for (name, value) in fields {
        raw.push_str(&format!("{name}: {value}\r\n"));
    }
    raw.push_str("\r\n");
    check(&head("POST", target, fields), Some(raw.as_bytes()))
}

#[test]
fn ordinary_heads_pass() {
    assert_eq!(verdict("/v1/models?a=b", &[("host", "llm.chutes.localhost:8443")]), Ok(()));
    assert_eq!(verdict("/", &[("host", "[::1]:8080"), ("content-length", "12")]), Ok(()));
    assert_eq!(verdict("/", &[("host", "a"), ("transfer-encoding", "Chunked")]), Ok(()));
}

#[test]
fn two_lengths_or_odd_ones_are_refused() {
    for fields in [
        &[("host", "a"), ("transfer-encoding", "chunked, chunked")][..],
        &[("host", "a"), ("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")],
        &[("host", "a"), ("transfer-encoding", "gzip, chunked")],
        &[("host", "a"), ("content-length", "5, 5")],
        &[("host", "a"), ("content-length", "5"), ("content-length", "5")],
        &[("host", "a"), ("content-length", "+5")],
        &[("host", "a"), ("content-length", "")],
    ] {
        assert!(verdict("/", fields).is_err(), "{fields:?}");
    }
}

#[test]
fn a_length_beside_chunked_is_refused_although_the_framework_dropped_it() {
    let request = head("POST", "/", &[("host", "a"), ("transfer-encoding", "chunked")]);
    let raw = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-LENGTH: 5\r\n\r\n";
    assert_eq!(check(&request, Some(raw)), Err("Content-Length together with Transfer-Encoding"));
}

#[test]
fn over_http_2_there_is_one_length_too() {
    for fields in [
        &[("content-length", "5"), ("content-length", "6")][..],
        &[("content-length", "5, 6")],
        &[("content-length", "5"), ("transfer-encoding", "chunked")],
    ] {
        assert!(check(&head("POST", "/", fields), None).is_err(), "{fields:?}");
    }
    assert_eq!(check(&head("POST", "/", &[("content-length", "5")]), None), Ok(()));
}

#[test]
fn control_bytes_and_bare_line_ends_are_refused() {
    let request = head("GET", "/", &[("host", "a")]);
    for raw in [
        &b"GET / HTTP/1.1\nHost: a\r\n\r\n"[..],
        b"GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x7fb\r\n\r\n",
    ] {
        assert!(check(&request, Some(raw)).is_err(), "{raw:?}");
    }
    assert_eq!(check(&request, Some(b"GET / HTTP/1.1\r\nHost: a\r\nX: a\tb\r\n\r\n")), Ok(()));
}

#[test]
fn a_target_is_a_path_or_a_url_of_the_web() {
    for target in ["/a", "http://a/b?c", "HTTPS://a", "http://a?c"] {
        assert_eq!(verdict(target, &[("host", "a")]), Ok(()), "{target}");
    }
    for target in ["*", "a", "a:80", "file:///a", "ws://a/", "http:a", "http:/a", "://a", "?a"] {
        assert!(verdict(target, &[("host", "a")]).is_err(), "{target}");
    }
    assert!(check(&head("CONNECT", "http://a/", &[("host", "a")]), None).is_err());
    assert!(check(&RequestHeader::build("GET", b"/\xff", None).unwrap(), None).is_err());
}
