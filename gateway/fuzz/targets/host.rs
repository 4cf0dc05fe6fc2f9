//! Which room a request gets by its names: one that the client named everywhere alike.

use gateway::host::{Hosts, Target, merge_slashes};
use http::header::HOST;
use http::{HeaderMap, HeaderValue, Uri};

use super::line;

/// `data` is the TLS name, the target and one `Host` field a line.
pub(crate) fn run(data: &[u8]) {
    let (server_name, rest) = line(data);
    let (uri, rest) = line(rest);
    let Ok(server_name) = std::str::from_utf8(server_name) else { return };
    let Ok(uri) = Uri::try_from(uri) else { return };
    let mut headers = HeaderMap::new();
    for value in rest.split(|byte| *byte == b'\n').filter(|value| !value.is_empty()).take(4) {
        let Ok(value) = HeaderValue::from_bytes(value) else { return };
        headers.append(HOST, value);
    }
    check_path(uri.path());
    let hosts = Hosts::new("chutes.test");
    let server_name = (!server_name.is_empty()).then_some(server_name);
    let Ok(target) = hosts.target(server_name, &uri, &headers) else { return };
    assert!(headers.len() <= 1, "two names and a room");
    let host = headers.get(HOST).map(|value| value.to_str().expect("a room has a readable name").to_owned());
    let name = uri.authority().map(|authority| authority.to_string()).or(host).expect("a room has a name");
    let name = name.to_ascii_lowercase();
    if let Target::Chute(slug) = &target {
        assert!(name.starts_with(&format!("{}.chutes.test", slug.as_str())), "{name} is not {}", slug.as_str());
    }
    if let Some(server_name) = server_name {
        let server_name = bare(&server_name.to_ascii_lowercase());
        let ours = |name: &str| name.ends_with(".chutes.test");
        let name = bare(&name);
        assert!(name == server_name || (ours(&name) && ours(&server_name)), "{server_name} reaches {name}");
    }
    let again = hosts.target(server_name.map(str::to_ascii_uppercase).as_deref(), &uri, &headers);
    assert_eq!(again, Ok(target), "letters of the TLS name decide");
}

/// A name without port and final dot.
fn bare(name: &str) -> String {
    name.split(':').next().unwrap_or_default().trim_end_matches('.').to_owned()
}

fn check_path(path: &str) {
    let merged = merge_slashes(path);
    assert!(!merged.contains("//") && merged.len() <= path.len());
    assert_eq!(merge_slashes(&merged), merged, "merging twice is merging once");
    let without = |path: &str| path.replace('/', "");
    assert_eq!(without(&merged), without(path), "merging loses more than slashes");
}
