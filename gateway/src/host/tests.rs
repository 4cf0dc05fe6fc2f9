//! Where requests go, and which cord they mean.

use http::Method;
use proptest::prelude::*;
use protocol::directory::Template;

use super::*;
use crate::fixture;

fn headers(host: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::HOST, http::HeaderValue::from_bytes(host).unwrap());
    headers
}

fn target(server_name: Option<&str>, host: &str) -> Result<Target, Refusal> {
    Hosts::new("Chutes.localhost.").target(server_name, &Uri::from_static("/v1/models"), &headers(host.as_bytes()))
}

fn slug(text: &str) -> Result<Target, Refusal> {
    Ok(Target::Chute(Slug::parse(text).unwrap()))
}

#[test]
fn each_label_has_its_target_whatever_case_port_and_final_dot() {
    let known = [
        ("api", Target::Api),
        ("registry", Target::Registry),
        ("ws", Target::Ws),
        ("events", Target::Events),
        ("llm", Target::Llm),
        ("embed", Target::Embed),
        ("image", Target::Image),
    ];
    for (label, expected) in known {
        for form in
            ["{}.chutes.localhost", "{}.chutes.localhost:8443", "{}.CHUTES.localhost.", "{}.chutes.localhost.:1"]
        {
            let host = form.replace("{}", label);
            assert_eq!(target(None, &host), Ok(expected.clone()), "{host}");
        }
    }
    assert_eq!(target(None, "LLM.Chutes.Localhost"), Ok(Target::Llm));
    assert_eq!(target(None, "jon-model-1.chutes.localhost"), slug("jon-model-1"));
}

#[test]
fn addresses_and_names_outside_the_domain_go_to_the_api() {
    for host in [
        "127.0.0.1",
        "127.0.0.1:8000",
        "[::1]",
        "[::1]:8000",
        "localhost",
        "example.com:80",
        "chutes.localhost",
        "chutes.localhost:8443",
        "notchutes.localhost",
        "llm.notchutes.localhost",
        "llm.chutes.localhost.example.com",
    ] {
        assert_eq!(target(None, host), Ok(Target::Api), "{host}");
    }
}

#[test]
fn a_name_under_the_domain_that_is_no_slug_is_not_found() {
    let long = format!("{}.chutes.localhost", "x".repeat(64));
    for host in
        ["a.b.chutes.localhost", "a_b.chutes.localhost", "-a.chutes.localhost", "llm.llm.chutes.localhost", &long]
    {
        assert_eq!(target(None, host), Err(Refusal::UnknownChute), "{host}");
    }
}

#[test]
fn a_malformed_host_is_refused() {
    let long = format!("{}.com", "a.".repeat(126));
    for host in [
        "",
        " ",
        ".",
        ":80",
        "a b",
        "a/b",
        "a\\b",
        "user@llm.chutes.localhost",
        "a..b",
        ".a",
        "a:b",
        "a:65536",
        "a:1:2",
        "::1",
        "[::1",
        "[::1]x",
        "[]",
        "[1.2.3.4]",
        "[fe80::1%25eth0]",
        "llm.chutes.localhost, x",
        "a%2fb",
        "a?b",
        "a#b",
        "\u{e4}.de",
        &long,
    ] {
        assert!(matches!(target(None, host), Err(Refusal::BadRequest(_))), "{host:?}");
    }
}

#[test]
fn the_longest_name_that_dns_allows_is_a_host() {
    let name = format!("{}ab", "a.".repeat(125));
    assert_eq!(name.len(), 252);
    for (name, good) in [(format!("{name}b"), true), (format!("{name}b."), true), (format!("{name}bb"), false)] {
        assert_eq!(target(None, &name).is_ok(), good, "{} bytes", name.len());
    }
}

#[test]
fn a_request_names_exactly_one_host() {
    let hosts = Hosts::new("chutes.localhost");
    let path = Uri::from_static("/");
    let whole = Uri::from_static("https://llm.chutes.localhost:8443/v1/models");
    assert!(matches!(hosts.target(None, &path, &HeaderMap::new()), Err(Refusal::BadRequest(_))));
    assert_eq!(hosts.target(None, &whole, &HeaderMap::new()), Ok(Target::Llm));
    assert_eq!(hosts.target(None, &whole, &headers(b"LLM.chutes.localhost")), Ok(Target::Llm));
    assert!(matches!(hosts.target(None, &whole, &headers(b"api.chutes.localhost")), Err(Refusal::BadRequest(_))));
    let mut two = headers(b"llm.chutes.localhost");
    two.append(header::HOST, http::HeaderValue::from_static("llm.chutes.localhost"));
    assert!(matches!(hosts.target(None, &path, &two), Err(Refusal::BadRequest(_))));
}

#[test]
fn the_tls_name_and_the_host_are_one_name_or_both_under_the_wildcard() {
    for (server_name, host) in [
        ("llm.chutes.localhost", "llm.chutes.localhost"),
        ("llm.chutes.localhost", "api.chutes.localhost:8443"),
        ("LLM.chutes.localhost.", "jon-model.chutes.localhost"),
        ("example.com", "example.com"),
        ("chutes.localhost", "chutes.localhost"),
    ] {
        assert!(target(Some(server_name), host).is_ok(), "{server_name} {host}");
    }
    for (server_name, host) in [
        ("example.com", "llm.chutes.localhost"),
        ("llm.chutes.localhost", "example.com"),
        ("chutes.localhost", "llm.chutes.localhost"),
        ("a.b.chutes.localhost", "llm.chutes.localhost"),
        ("llm.chutes.localhost", "a.b.chutes.localhost"),
        ("llm.chutes.localhost", "127.0.0.1"),
        ("", "llm.chutes.localhost"),
        ("a$b.chutes.localhost", "llm.chutes.localhost"),
    ] {
        assert_eq!(target(Some(server_name), host), Err(Refusal::Misdirected), "{server_name} {host}");
    }
}

#[test]
fn runs_of_slashes_become_one() {
    for (path, merged) in [
        ("/", "/"),
        ("//", "/"),
        ("/a/b/", "/a/b/"),
        ("//invocations//exports///1.csv", "/invocations/exports/1.csv"),
        ("/a//", "/a/"),
        ("", ""),
    ] {
        assert_eq!(merge_slashes(path), merged);
    }
    assert!(matches!(merge_slashes("/v1/models"), Cow::Borrowed(_)));
}

#[test]
fn s5_on_a_call_host_the_path_of_an_api_route_is_a_cord_path_and_not_found() {
    assert_eq!(target(None, "chutes-model.chutes.localhost"), slug("chutes-model"));
    let mut chute = fixture::chute("model", Some(Template::Vllm));
    chute.cords = vec![fixture::cord("chat", "/v1/chat/completions", false)];
    assert_eq!(cord::find(&chute, &Method::POST, "/api_keys/", false), Err(Refusal::UnknownCord));
    assert_eq!(cord::find(&chute, &Method::GET, "/users/me", false), Err(Refusal::UnknownCord));
}

#[test]
fn a_cord_is_found_by_path_method_and_for_llm_chutes_by_stream() {
    let mut chute = fixture::chute("model", Some(Template::Vllm));
    let mut models = fixture::cord("get_models", "/v1/models", false);
    models.public_method = "GET".into();
    let mut hidden = fixture::cord("hidden", "/hidden", false);
    hidden.public_path = None;
    chute.cords = vec![
        fixture::cord("chat_stream", "/v1/chat/completions", true),
        fixture::cord("chat", "/v1/chat/completions", false),
        models,
        hidden,
    ];
    let function = |method: Method, path: &str, stream: bool| {
        cord::find(&chute, &method, path, stream).map(|cord| cord.function.as_str())
    };
    assert_eq!(function(Method::POST, "/v1/chat/completions", true), Ok("chat_stream"));
    assert_eq!(function(Method::POST, "/v1/chat/completions", false), Ok("chat"));
    assert_eq!(function(Method::GET, "/v1/models", false), Ok("get_models"));
    for (method, path, stream) in [
        (Method::GET, "/v1/chat/completions", false),
        (Method::POST, "/v1/chat/completions/", false),
        (Method::POST, "/V1/chat/completions", false),
        (Method::GET, "/v1/models", true),
        (Method::POST, "/hidden", false),
        (Method::HEAD, "/v1/models", false),
        (Method::POST, "", false),
    ] {
        assert_eq!(function(method, path, stream), Err(Refusal::UnknownCord), "{path}");
    }
}

#[test]
fn a_chute_of_its_own_kind_streams_whatever_the_body_says() {
    let mut chute = fixture::chute("own", None);
    chute.cords = vec![fixture::cord("tick", "/tick", true)];
    assert!(cord::find(&chute, &Method::POST, "/tick", false).is_ok());
}

#[test]
fn a_query_is_decoded_and_the_last_of_a_name_counts() {
    let read = |text| query::parameters(text).unwrap();
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(read(""), vec![]);
    assert_eq!(read("a=1&b=x+y&&c"), vec![pair("a", "1"), pair("b", "x y"), pair("c", "")]);
    assert_eq!(read("a=1&b=2&a=%C3%A4%3D%26"), vec![pair("a", "\u{e4}=&"), pair("b", "2")]);
    assert_eq!(read("a=%&b=%4&c=%zz&d=%%41"), vec![pair("a", "%"), pair("b", "%4"), pair("c", "%zz"), pair("d", "%A")]);
    assert!(matches!(query::parameters("a=%FF"), Err(Refusal::BadRequest(_))));
    let many: String = (0..257).map(|number| format!("p{number}=&")).collect();
    assert!(matches!(query::parameters(&many), Err(Refusal::BadRequest(_))));
    assert_eq!(query::parameters(many.trim_start_matches("p0=&")).unwrap().len(), 256);
    assert!(query::asks_for_stream(&read("stream=true")));
    assert!(!query::asks_for_stream(&read("stream=false&x=true")));
}

proptest! {
    #[test]
    fn no_bytes_in_a_host_make_it_panic(
        host in prop::collection::vec(any::<u8>(), 0..64),
        server_name in prop::option::of(".{0,32}"),
    ) {
        if let Ok(value) = http::HeaderValue::from_bytes(&host) {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, value);
            let _ = Hosts::new("chutes.localhost").target(server_name.as_deref(), &Uri::from_static("/"), &headers);
        }
    }

    #[test]
    fn a_merged_path_has_no_double_slash_and_nothing_else_is_lost(path in "[/a.%]{0,24}") {
        let merged = merge_slashes(&path);
        prop_assert!(!merged.contains("//"));
        prop_assert_eq!(merged.replace('/', ""), path.replace('/', ""));
        prop_assert_eq!(merge_slashes(&merged).into_owned(), merged.clone().into_owned());
    }

    #[test]
    fn no_query_makes_it_panic(query in "[a%=&+0-9A-F\u{e4}]{0,48}") {
        let _ = query::parameters(&query);
    }
}
