//! What a service hears of a client, and from whom.

use super::*;

const BALANCER: &str = "10.0.0.1";

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn client(peer: &str, forwarded_for: &[&'static str]) -> Client {
    let mut headers = HeaderMap::new();
    for value in forwarded_for {
        headers.append(FORWARDED_FOR, value.parse().unwrap());
    }
    headers.append(FORWARDED_PROTO, "https".parse().unwrap());
    Client::of(Some(address(peer)), false, &headers, &[address(BALANCER), address("10.0.0.2")])
}

#[test]
fn s11_a_stranger_cannot_name_another_address() {
    let stranger = client("192.0.2.7", &["198.51.100.1", "10.0.0.1"]);
    assert_eq!(stranger, Client { address: Some(address("192.0.2.7")), tls: false });
}

#[test]
fn s11_behind_a_balancer_the_last_untrusted_address_counts() {
    let forged = client(BALANCER, &["198.51.100.66, 192.0.2.7"]);
    assert_eq!(forged, Client { address: Some(address("192.0.2.7")), tls: true });
    let chained = client(BALANCER, &["198.51.100.66", "192.0.2.7, 10.0.0.2"]);
    assert_eq!(chained.address, Some(address("192.0.2.7")));
    assert_eq!(client(BALANCER, &["nonsense"]).address, Some(address(BALANCER)));
    assert_eq!(client(BALANCER, &[]).address, Some(address(BALANCER)));
}

#[test]
fn only_credentials_of_our_header_family_reach_a_service() {
    let mut request = RequestHeader::build("GET", b"/users/me", None).unwrap();
    for (name, value) in [
        ("host", "api.chutes.localhost"),
        ("X-Chutes-Hotkey", "5F"),
        ("X-Chutes-Signature", "ab"),
        ("X-Chutes-Nonce", "1"),
        ("X-Chutes-Validator", "forged"),
        ("X-Chutes-Internal", "forged"),
        ("X-Forwarded-For", "forged"),
        ("X-Forwarded-Port", "forged"),
        ("Forwarded", "for=forged"),
        ("X-Real-IP", "forged"),
        ("Authorization", "Bearer kept"),
    ] {
        request.append_header(name, value).unwrap();
    }
    rewrite_request(&mut request, Client { address: Some(address("192.0.2.7")), tls: true }).unwrap();
    let mut fields: Vec<String> =
        request.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
    fields.sort();
    assert_eq!(
        fields,
        [
            "authorization: Bearer kept",
            "host: api.chutes.localhost",
            "x-chutes-hotkey: 5F",
            "x-chutes-nonce: 1",
            "x-chutes-signature: ab",
            "x-forwarded-for: 192.0.2.7",
            "x-forwarded-host: api.chutes.localhost",
            "x-forwarded-proto: https",
            "x-real-ip: 192.0.2.7",
        ]
    );
}

#[test]
fn a_service_gets_a_path_and_each_run_of_slashes_as_one() {
    for (target, path) in [
        ("//invocations///exports?limit=1//2", "/invocations/exports?limit=1//2"),
        ("http://api.chutes.localhost//users/%2e%2e/me?a=//", "/users/%2e%2e/me?a=//"),
        ("https://api.chutes.localhost?a=1", "/?a=1"),
        ("http://api.chutes.localhost", "/"),
        ("/users/../me/%2f", "/users/../me/%2f"),
    ] {
        let mut request = RequestHeader::build("GET", target.as_bytes(), None).unwrap();
        rewrite_request(&mut request, Client { address: None, tls: false }).unwrap();
        assert_eq!((request.uri.to_string().as_str(), request.raw_path()), (path, path.as_bytes()));
    }
}

#[test]
fn a_socket_that_lives_on_may_be_silent_and_nothing_else() {
    let timeout = |lives_on| {
        let client = Client { address: None, tls: false };
        let address = (address("192.0.2.7"), 80).into();
        Forwarded { service: Service::Ws, address, client, lives_on }.peer().options.read_timeout
    };
    assert_eq!((timeout(false), timeout(true)), (Some(SILENCE), None));
}

#[test]
fn only_the_opening_handshake_of_a_websocket_lives_on() {
    let asked = |method: &str, fields: &[(&'static str, &str)]| {
        let mut request = RequestHeader::build(method, b"/socket.io/", None).unwrap();
        for (name, value) in fields {
            request.append_header(*name, *value).unwrap();
        }
        asks_for_websocket(&request)
    };
    let handshake = [("connection", "Upgrade"), ("upgrade", "websocket")];
    assert!(asked("GET", &handshake));
    // As Firefox asks, and as some balancers pass it on.
    assert!(asked("GET", &[("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")]));
    assert!(!asked("POST", &handshake));
    assert!(!asked("GET", &[("connection", "Upgrade"), ("upgrade", "h2c")]));
    assert!(!asked("GET", &[("connection", "keep-alive"), ("upgrade", "websocket")]));
    assert!(!asked("GET", &[("connection", "Upgrade")]));
    assert!(!asked("GET", &[handshake[0], handshake[1], ("content-length", "1000000")]));
    assert!(!asked("GET", &[handshake[0], handshake[1], ("transfer-encoding", "chunked")]));
}
