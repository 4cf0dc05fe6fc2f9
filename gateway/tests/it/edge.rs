//! What the edge answers before any instance is asked, through the real executable.

use std::sync::Arc;
use std::time::Duration;

use protocol::credential::Scopes;
use protocol::usage::Outcome;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Mutex;

use crate::client::{Raw, ask, chat, request};
use crate::instance::{Act, Scripted};
use crate::platform::{DOMAIN, Platform, Wishes};

const CHAT: &str = "/v1/chat/completions";

/// Sends these bytes on a connection of its own; status and `error.code` of the answer.
async fn told(platform: &Platform, bytes: &[u8]) -> (u16, String) {
    let mut raw = Raw::connect(platform).await;
    raw.send(bytes).await;
    let got = raw.answer().await;
    let code = got.json()["error"]["code"].as_str().unwrap_or_default().to_owned();
    (got.status, code)
}

#[tokio::test]
async fn an_unknown_label_is_not_found_like_a_private_chute() {
    let wishes = Wishes {
        directory: Some(|directory| {
            directory.chutes[1].public = false;
            directory.chutes[1].owner = protocol::ids::UserId::random();
        }),
        ..Wishes::default()
    };
    let platform = Platform::start(&[], wishes).await;
    for label in ["nobody", "own-chute"] {
        let got = ask(&platform, "POST", label, "/run", "{}").await;
        assert_eq!((got.status, got.json()["detail"].as_str()), (404, Some("No matching chute found!")));
        assert!(got.field("x-chutes-invocationid").is_some());
        let anonymous = format!("POST /run HTTP/1.1\r\nHost: {label}.{DOMAIN}\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(told(&platform, anonymous.as_bytes()).await, (404, "unknown_chute".into()));
    }
}

#[tokio::test]
async fn a_public_chute_asks_strangers_who_they_are() {
    let platform = Platform::start(&[], Wishes::default()).await;
    for label in ["llm-chute", "llm", "embed", "image"] {
        let anonymous = format!("POST {CHAT} HTTP/1.1\r\nHost: {label}.{DOMAIN}\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(told(&platform, anonymous.as_bytes()).await, (401, "unauthenticated".into()));
    }
}

#[tokio::test]
async fn the_model_list_needs_no_credential_and_only_reads() {
    let platform = Platform::start(&[], Wishes::default()).await;
    let mut raw = Raw::connect(&platform).await;
    let head = |method: &str| format!("{method} //v1//models HTTP/1.1\r\nHost: llm.{DOMAIN}\r\n\r\n");
    raw.send(head("GET").as_bytes()).await;
    let listed = raw.answer().await.json();
    assert_eq!((listed["object"].as_str(), listed["data"][0]["id"].as_str()), (Some("list"), Some("org/model")));
    assert_eq!(told(&platform, head("DELETE").as_bytes()).await, (405, "method_not_allowed".into()));
}

#[tokio::test]
async fn s5_api_paths_on_a_call_host_are_cord_paths() {
    let platform = Platform::start(&[], Wishes::default()).await;
    for path in ["/api_keys/", "/users/me", "/_metrics"] {
        let got = ask(&platform, "POST", "llm-chute", path, &chat(false)).await;
        assert_eq!((got.status, got.json()["error"]["code"].as_str()), (404, Some("unknown_cord")));
    }
}

#[tokio::test]
async fn duplicate_slashes_mean_one() {
    let scripted = Scripted::start([Act::Json("1".into())]).await;
    let platform = Platform::start(&[&scripted], Wishes::default()).await;
    let got = ask(&platform, "POST", "own-chute", "//run", "{}").await;
    assert_eq!((got.status, got.text().as_str()), (200, "1"));
    assert_eq!(scripted.requests.lock().unwrap()[0].path, "/run");
}

#[tokio::test]
async fn a_key_without_the_scope_is_told_so() {
    let wishes = Wishes { scopes: Some(Scopes::Listed(vec![])), ..Wishes::default() };
    let platform = Platform::start(&[], wishes).await;
    let got = ask(&platform, "POST", "llm-chute", CHAT, &chat(true)).await;
    assert_eq!((got.status, got.json()["error"]["type"].as_str()), (403, Some("permission_error")));
}

#[tokio::test]
async fn limits_say_whose_they_are_and_when_to_come_back() {
    let wishes = Wishes { user: Some(|user| user.rate_per_minute = Some(1)), ..Wishes::default() };
    let scripted = Scripted::start([Act::Json("1".into())]).await;
    let platform = Platform::start(&[&scripted], wishes).await;
    let first = ask(&platform, "POST", "own-chute", "/run", "{}").await;
    assert_eq!((first.status, first.field("x-ratelimit-remaining")), (200, Some("0")));
    let second = ask(&platform, "POST", "own-chute", "/run", "{}").await;
    assert_eq!((second.status, second.json()["error"]["code"].as_str()), (429, Some("rate_limited")));
    assert_eq!(second.field("x-ratelimit-limit"), Some("1"));
    assert_eq!(second.field("x-ratelimit-reset"), second.field("retry-after"));
}

#[tokio::test]
async fn a_used_up_allowance_without_balance_is_402() {
    let wishes =
        Wishes { user: Some(|user| user.quotas.values_mut().for_each(|quota| *quota = 1)), ..Wishes::default() };
    let scripted = Scripted::start([Act::Json("1".into())]).await;
    let platform = Platform::start(&[&scripted], wishes).await;
    assert_eq!(ask(&platform, "POST", "own-chute", "/run", "{}").await.status, 200);
    let second = ask(&platform, "POST", "own-chute", "/run", "{}").await;
    assert_eq!((second.status, second.json()["error"]["type"].as_str()), (402, Some("insufficient_quota")));
    assert!(second.field("retry-after").is_some());
}

#[tokio::test]
async fn a_body_that_is_too_large_is_read_off_so_that_the_answer_arrives() {
    let wishes = Wishes { settings: vec!["--max-body=1000".into()], ..Wishes::default() };
    let platform = Platform::start(&[], wishes).await;
    let mut raw = Raw::connect(&platform).await;
    let large = "x".repeat(4 << 20);
    raw.send(&request(&platform, "POST", "own-chute", "/run", &large)).await;
    let got = raw.answer().await;
    assert_eq!((got.status, got.json()["error"]["code"].as_str()), (413, Some("body_too_large")));
    raw.send(&request(&platform, "POST", "own-chute", "/nowhere", "{}")).await;
    assert_eq!(raw.answer().await.status, 404);
}

#[tokio::test]
async fn a_chunked_body_that_grows_too_large_is_refused() {
    let wishes = Wishes { settings: vec!["--max-body=1000".into()], ..Wishes::default() };
    let platform = Platform::start(&[], wishes).await;
    let head = format!(
        "POST /run HTTP/1.1\r\nHost: own-chute.{DOMAIN}\r\nAuthorization: {}\r\nTransfer-Encoding: chunked\r\n\r\n",
        platform.key
    );
    let body = format!("{:x}\r\n{}\r\n0\r\n\r\n", 2000, "x".repeat(2000));
    assert_eq!(told(&platform, (head + &body).as_bytes()).await, (413, "body_too_large".into()));
}

#[tokio::test]
async fn a_body_that_does_not_arrive_in_time_is_408() {
    let wishes = Wishes { settings: vec!["--body-seconds=0.5".into()], ..Wishes::default() };
    let platform = Platform::start(&[], wishes).await;
    let head = format!(
        "POST /run HTTP/1.1\r\nHost: own-chute.{DOMAIN}\r\nAuthorization: {}\r\nContent-Length: 9\r\n\r\n{{",
        platform.key
    );
    // Sooner than silence alone would be punished.
    let told = tokio::time::timeout(Duration::from_secs(15), told(&platform, head.as_bytes())).await;
    assert_eq!(told, Ok((408, "body_timeout".into())));
}

#[tokio::test]
async fn a_body_is_asked_for_only_after_the_checks() {
    let scripted = Scripted::start([Act::Json("1".into())]).await;
    let platform = Platform::start(&[&scripted], Wishes::default()).await;
    let head = |key: &str| {
        format!(
            "POST /run HTTP/1.1\r\nHost: own-chute.{DOMAIN}\r\nAuthorization: {key}\r\nContent-Length: 2\r\n\
             Expect: 100-continue\r\n\r\n"
        )
    };
    let mut raw = Raw::connect(&platform).await;
    raw.send(head(&platform.key).as_bytes()).await;
    assert_eq!(raw.answer().await.status, 100);
    raw.send(b"{}").await;
    assert_eq!(raw.answer().await.status, 200);
    let mut stranger = Raw::connect(&platform).await;
    stranger.send(head("nonsense").as_bytes()).await;
    assert_eq!(stranger.answer().await.status, 401);
    assert!(stranger.closes().await);
}

#[tokio::test]
async fn a_request_that_follows_at_once_is_answered_too() {
    let scripted = Scripted::start([Act::Json("1".into())]).await;
    let platform = Platform::start(&[&scripted], Wishes::default()).await;
    let mut raw = Raw::connect(&platform).await;
    let one = request(&platform, "POST", "own-chute", "/run", r#"{"a":1}"#);
    raw.send(&[one.clone(), one].concat()).await;
    for _ in 0..2 {
        let got = raw.answer().await;
        assert_eq!((got.status, got.text().as_str()), (200, "1"));
    }
}

#[tokio::test]
async fn heads_that_can_be_read_in_two_ways_are_refused_and_end_the_connection() {
    let platform = Platform::start(&[], Wishes::default()).await;
    let host = format!("Host: llm.{DOMAIN}\r\n");
    for head in [
        format!("POST /run HTTP/1.1\r\n{host}Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        format!("POST /run HTTP/1.1\r\n{host}Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
        format!("POST /run HTTP/1.1\r\n{host}Content-Length: 2, 2\r\n\r\n{{}}"),
        format!("GET /run HTTP/1.1\n{host}\r\n"),
        "GET /run HTTP/1.1\r\nHost: a b\r\n\r\n".into(),
        "GET /run HTTP/1.1\r\n\r\n".into(),
    ] {
        let mut raw = Raw::connect(&platform).await;
        raw.send(head.as_bytes()).await;
        let got = raw.answer().await;
        assert_eq!(got.status, 400, "{head:?} got {}", got.text());
        assert!(raw.closes().await);
    }
}

#[tokio::test]
async fn s11_a_service_hears_of_the_client_from_the_edge_alone() {
    let api = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let wishes = Wishes { api: Some(api.local_addr().unwrap()), ..Wishes::default() };
    let platform = Platform::start(&[], wishes).await;
    let service = async {
        let (mut stream, _) = api.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_buf(&mut head).await.unwrap();
        }
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nKeep-Alive: timeout=9\r\n\r\nok";
        stream.write_all(answer).await.unwrap();
        String::from_utf8(head).unwrap().to_ascii_lowercase()
    };
    let mut raw = Raw::connect(&platform).await;
    raw.send(b"GET /ping HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Forwarded-For: 9.9.9.9\r\nForwarded: for=9.9.9.9\r\n").await;
    raw.send(b"X-Real-IP: 9.9.9.9\r\nX-Chutes-Validator: forged\r\nX-Chutes-Hotkey: kept\r\n\r\n").await;
    let (head, got) = tokio::join!(service, raw.answer());
    assert_eq!((got.status, got.text().as_str(), got.field("keep-alive")), (200, "ok", None));
    assert!(!head.contains("9.9.9.9") && !head.contains("forged"), "{head}");
    assert!(head.contains("x-forwarded-for: 127.0.0.1") && head.contains("x-chutes-hotkey: kept"), "{head}");
}

#[tokio::test]
async fn services_that_are_not_there_and_pages_that_are_not_public_say_so() {
    let platform = Platform::start(&[], Wishes::default()).await;
    for (host, path, status) in [("registry", "/v2/", 503), ("api", "/ping", 503), ("api", "//_metrics", 404)] {
        let mut raw = Raw::connect(&platform).await;
        raw.send(format!("GET {path} HTTP/1.1\r\nHost: {host}.{DOMAIN}\r\n\r\n").as_bytes()).await;
        let got = raw.answer().await;
        assert_eq!((got.status, got.field("content-type")), (status, Some("application/json")));
        assert!(got.json()["detail"].is_string());
    }
}

pub(crate) fn browser(platform: &Platform, host: &str, http2: bool) -> reqwest::Client {
    let client = browser_builder(platform, host);
    if http2 { client.http2_prior_knowledge() } else { client.http1_only() }.build().unwrap()
}

/// The same before it is made, for those who want it otherwise.
pub(crate) fn browser_builder(platform: &Platform, host: &str) -> reqwest::ClientBuilder {
    let root = reqwest::Certificate::from_pem(platform.authority.as_bytes()).unwrap();
    let address = ([127, 0, 0, 1], platform.https).into();
    reqwest::Client::builder().add_root_certificate(root).resolve(host, address)
}

#[tokio::test]
async fn streams_pass_tls_over_both_versions_of_http() {
    let pieces = vec![crate::client::content("one"), "data: [DONE]\n\n".to_owned()];
    let scripted = Scripted::start([Act::Stream(pieces.clone())]).await;
    let platform = Platform::start(&[&scripted], Wishes::default()).await;
    let host = format!("llm.{DOMAIN}");
    for http2 in [false, true] {
        let got = browser(&platform, &host, http2)
            .post(format!("https://{host}:{}{CHAT}", platform.https))
            .bearer_auth(&platform.key)
            .body(chat(true))
            .send()
            .await
            .unwrap();
        assert_eq!(got.version() == reqwest::Version::HTTP_2, http2);
        assert_eq!(got.status(), 200);
        assert_eq!(got.text().await.unwrap(), pieces.concat());
    }
}

#[tokio::test]
async fn c1_a_client_of_http2_that_resets_its_stream_or_leaves_closes_the_instance() {
    for leaves in [false, true] {
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        let instance = Scripted::start([Act::Fed(Arc::new(Mutex::new(receiver)))]).await;
        let platform = Platform::start(&[&instance], Wishes::default()).await;
        sender.send(crate::client::content("one")).await.unwrap();
        let host = format!("llm.{DOMAIN}");
        let client = browser(&platform, &host, true);
        let call = client.post(format!("https://{host}:{}{CHAT}", platform.https)).bearer_auth(&platform.key);
        let call = call.body(chat(true));
        let models = client.get(format!("https://{host}:{}/v1/models", platform.https));
        // The connection lives in a runtime of its own and ends with it.
        let leaving = tokio::task::spawn_blocking(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let mut got = runtime.block_on(call.send()).unwrap();
            assert_eq!(got.version(), reqwest::Version::HTTP_2);
            assert!(runtime.block_on(got.chunk()).unwrap().is_some());
            if !leaves {
                drop(got);
                assert_eq!(runtime.block_on(models.send()).unwrap().status(), 200, "the connection lives on");
                return Some(runtime);
            }
            drop(runtime);
            None
        });
        let connection = leaving.await.unwrap();
        let mut abandoned = instance.abandoned.clone();
        let closed =
            tokio::time::timeout(Duration::from_secs(2), abandoned.wait_for(|abandoned| *abandoned == 1)).await;
        closed.expect("the instance is let go").unwrap();
        let records = platform.records(1).await;
        assert_eq!((records.len(), records[0].outcome, records[0].delivered), (1, Outcome::Aborted, true));
        if let Some(connection) = connection {
            connection.shutdown_background();
        }
    }
}

#[tokio::test]
async fn a_host_that_is_not_the_tls_name_is_misdirected() {
    let platform = Platform::start(&[], Wishes::default()).await;
    let host = format!("llm.{DOMAIN}");
    let client = browser(&platform, &host, false);
    for (other, status) in [("example.org", 421), ("embed.chutes.localhost", 401)] {
        let url = format!("https://{host}:{}{CHAT}", platform.https);
        let got = client.post(url).header("host", other).send().await.unwrap();
        assert_eq!(got.status(), status, "{other}");
    }
}

#[tokio::test]
async fn a_changed_certificate_is_taken_over_without_a_restart() {
    let mut platform = Platform::start(&[], Wishes::default()).await;
    let host = format!("llm.{DOMAIN}");
    let url = format!("https://{host}:{}/v1/models", platform.https);
    assert_eq!(browser(&platform, &host, true).get(&url).send().await.unwrap().status(), 200);
    platform.change_certificate();
    let trusts_the_new_one = browser(&platform, &host, true);
    while trusts_the_new_one.get(&url).send().await.is_err() {
        tokio::task::yield_now().await;
    }
}
