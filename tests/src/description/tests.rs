//! The names in `stack.json`, which tools outside this repository read.

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use super::*;

fn example() -> Value {
    json!({
        "domain": "chutes.localhost",
        "ca": "/x/ca.pem",
        "https_port": 1,
        "http_port": 2,
        "urls": {
            "api": "https://api.chutes.localhost:1",
            "llm": "https://llm.chutes.localhost:1",
            "embed": "https://embed.chutes.localhost:1",
            "image": "https://image.chutes.localhost:1"
        },
        "gateways": [{"https_port": 1, "internal_port": 3, "pid": 4}],
        "api_key": "cpk_x",
        "user": {"id": "u", "username": "demo"},
        "chute": {"id": "c", "slug": "chutes-sample", "host": "chutes-sample.chutes.localhost", "model": "sample"},
        "keys": {"call": {"address": "5C", "seed": "00"}, "chain": {"address": "5D", "seed": "01"}},
        "postgres_url": "postgres://chutes@127.0.0.1:5/chutes",
        "redis": {"url": {"control": "redis://control@127.0.0.1:6/", "gateway": "redis://gateway@127.0.0.1:6/"}},
        "s3": {"endpoint": "http://127.0.0.1:7", "bucket": "chutes", "access_key": "a", "secret_key": "s"},
        "internal": {"url": "http://127.0.0.1:8", "credential": "i"},
        "pids": {"gateway": [4], "control": [9, 10]}
    })
}

#[test]
fn tools_find_the_names_they_know() {
    let description: Description = serde_json::from_value(example()).unwrap();
    assert_eq!(serde_json::to_value(&description).unwrap(), example());
    let text = serde_json::to_string(&description).unwrap();
    let top =
        "domain ca https_port http_port urls gateways api_key user chute keys postgres_url redis s3 internal pids";
    let places: Vec<usize> = top.split(' ').map(|name| text.find(&format!("\"{name}\":")).unwrap()).collect();
    assert!(places.is_sorted(), "the order is part of the file");
}

#[test]
fn only_the_owner_reads_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let description: Description = serde_json::from_value(example()).unwrap();
    description.write(folder.path()).unwrap();
    let mode = folder.path().join(FILE).metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}
