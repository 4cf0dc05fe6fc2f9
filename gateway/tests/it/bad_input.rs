//! Bytes that no well-behaved client sends: the edge refuses them clearly and lets nothing through that was not asked
//! for, compared with what nginx and HAProxy make of the same bytes.

mod corpus;
mod peers;
mod service;

use std::cmp::Ordering;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use protocol::usage::Outcome;
use rustix::net::sockopt::set_tcp_cork;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Mutex;

use self::corpus::{Case, cases, mark};
use self::peers::Peer;
use self::service::{EARLY, Passed, Service};
use crate::client::{Raw, ask, chat, content, request};
use crate::instance::{Act, Scripted};
use crate::platform::{DOMAIN, Platform, Wishes};

const CHAT: &str = "/v1/chat/completions";
const IMAGES: &str = "/v1/images/generations";

/// How long nothing comes before an answer is taken to be all.
const QUIET: Duration = Duration::from_millis(700);

/// What a server made of a case.
#[derive(Debug, PartialEq)]
struct Made {
    /// Statuses of its answers.
    answers: Vec<u16>,
    /// What reached the service.
    passed: Vec<Passed>,
    /// Everything it said.
    text: String,
}

/// Offers a case to a server.
async fn offer(address: SocketAddr, service: &Service, number: usize, case: &Case) -> Made {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // An end is there together with what comes before it, so that no server sees the one without the other.
    set_tcp_cork(&stream, case.half_closed).unwrap();
    // A server may refuse before it has read all.
    let _ = stream.write_all(&case.bytes).await;
    if case.half_closed {
        let _ = stream.shutdown().await;
    }
    let mut said = Vec::new();
    while let Ok(Ok(1..)) = tokio::time::timeout(QUIET, stream.read_buf(&mut said)).await {}
    let passed = service.requests_with(&mark(number));
    Made { answers: statuses(&said), passed, text: String::from_utf8_lossy(&said).into_owned() }
}

/// The statuses of the answers in these bytes.
fn statuses(bytes: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(bytes);
    let heads = text.split("HTTP/1.").skip(1);
    heads.filter_map(|head| head.get(2..5)?.parse().ok()).collect()
}

async fn offer_all(address: SocketAddr, service: &Service, cases: &[Case]) -> Vec<Made> {
    let offers = cases.iter().enumerate().map(|(number, case)| offer(address, service, number, case));
    futures::stream::iter(offers).buffered(16).collect().await
}

/// Beginnings of fields that end at the edge, and of those that a client names in `Connection` or forges.
const NOT_PASSED: [&str; 11] = [
    "connection:",
    "keep-alive:",
    "proxy-",
    "te:",
    "trailer:",
    "upgrade:",
    "http2-settings:",
    "x-nominated:",
    "forwarded:",
    "x-chutes-",
    "x-forwarded-for: 9",
];

/// What is wrong with what the edge made of a case.
fn faults(case: &Case, made: &Made) -> Vec<&'static str> {
    let answers = &made.answers;
    let clear = answers.iter().all(|status| *status == 200) || made.text.contains("\"detail\":");
    let heads = || made.passed.iter().map(|passed| passed.head.as_str());
    let vouched = heads().all(|head| head.contains("x-forwarded-for: 127.0.0.1"));
    let said = heads().flat_map(str::lines).any(|line| NOT_PASSED.iter().any(|start| line.starts_with(start)));
    // What breaks off in its body may or may not have reached the service before.
    let fewer = !answers.contains(&200) && made.passed.len() < case.passes;
    let cut = |passed: &Passed| passed.body.is_none() && !passed.line.contains(EARLY);
    let found = [
        (*answers != case.answers, "other answers"),
        (made.passed.len() != case.passes && !fewer, "passes otherwise"),
        (!clear, "an answer without a reason"),
        (!vouched, "the service is not told of the client"),
        (said, "the service hears what ends at the edge"),
        (heads().any(|head| head.contains("/smuggled")), "smuggled"),
        (answers.contains(&200) && made.passed.iter().any(cut), "a body that breaks off is answered"),
    ];
    found.into_iter().filter_map(|(is_so, what)| is_so.then_some(what)).collect()
}

/// What the edge makes of a case, next to another.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
enum Next {
    Alike,
    Stricter,
    Laxer,
    PassesAnother,
}

impl Next {
    fn to(ours: &Made, theirs: &Made) -> Self {
        let passed = |made: &Made| if made.answers.contains(&200) { made.passed.len() } else { 0 };
        match passed(ours).cmp(&passed(theirs)) {
            Ordering::Less => return Self::Stricter,
            Ordering::Greater => return Self::Laxer,
            Ordering::Equal if passed(ours) == 0 => return Self::Alike,
            Ordering::Equal => {}
        }
        let same = |(ours, theirs): (&Passed, &Passed)| {
            // A body that a service has answered already may be left where it is.
            let bodies = ours.body.as_ref().zip(theirs.body.as_ref());
            ours.line == theirs.line && bodies.is_none_or(|(ours, theirs)| ours == theirs)
        };
        if ours.passed.iter().zip(&theirs.passed).all(same) { Self::Alike } else { Self::PassesAnother }
    }
}

#[tokio::test]
async fn malformed_requests_are_refused_clearly_and_smuggle_nothing() {
    let (service, log) = (Service::start().await, tempfile::NamedTempFile::new().unwrap());
    let wishes = Wishes { api: Some(service.address), log: Some(log.reopen().unwrap()), ..Wishes::default() };
    let platform = Platform::start(&[], wishes).await;
    let cases = cases();
    let ours = offer_all(([127, 0, 0, 1], platform.http).into(), &service, &cases).await;
    let mut wrong = Vec::new();
    for (case, made) in cases.iter().zip(&ours) {
        let faults = faults(case, made);
        if !faults.is_empty() {
            wrong.push(format!("{}: {faults:?} in {made:?}", case.name));
        }
    }
    let (nginx, haproxy) = (Peer::nginx().await, Peer::haproxy().await);
    let nginx = offer_all(nginx.address, &nginx.service, &cases).await;
    let haproxy = offer_all(haproxy.address, &haproxy.service, &cases).await;
    for (case, (ours, theirs)) in cases.iter().zip(ours.iter().zip(nginx.iter().zip(&haproxy))) {
        let next = [Next::to(ours, theirs.0), Next::to(ours, theirs.1)];
        // To refuse what one of them refuses needs no reason.
        let differs = next == [Next::Stricter; 2] || next.iter().any(|next| *next >= Next::Laxer);
        if differs && case.reason.is_none() {
            wrong.push(format!("{}: {next:?} without a reason: {ours:?}, nginx and HAProxy {theirs:?}", case.name));
        }
        if !differs && case.reason.is_some() {
            wrong.push(format!("{}: a reason for nothing", case.name));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    platform.is_idle().await;
    for held in ["chutes_gateway_forwarded", "chutes_gateway_connections"] {
        platform.until(held, |number| number == 0.0).await;
    }
    // A request that makes its task panic is cut off, as some of these have to be.
    let log = std::fs::read_to_string(log.path()).unwrap();
    assert!(!log.contains("panicked at"), "{log}");
}

/// Bodies of calls that are none, on the façade.
#[tokio::test]
async fn malformed_bodies_of_calls_are_refused_with_what_is_wrong() {
    let platform = Platform::start(&[], Wishes::default()).await;
    let bodies = [
        ("", "model is required"),
        ("{}", "model is required"),
        ("{\"model\":null}", "model is required"),
        ("{\"model\":1}", "model must be a string"),
        ("{\"model\":[\"org/model\"]}", "model must be a string"),
        ("{\"model\":\"org/model\",\"stream\":\"true\"}", "stream must be a boolean"),
        ("{\"model\":\"org/model\",\"stream\":1}", "stream must be a boolean"),
        (" ", "invalid request JSON payload: EOF"),
        ("{", "invalid request JSON payload: EOF"),
        ("nothing", "invalid request JSON payload: expected ident"),
        ("[]", "invalid request JSON payload: invalid type: sequence, expected a JSON object"),
        ("null", "invalid request JSON payload: invalid type: null, expected a JSON object"),
        ("\"text\"", "invalid request JSON payload: invalid type: string"),
        ("{\"model\":\"org/model\"}{}", "invalid request JSON payload: trailing characters"),
        ("{\"model\":\"org/model\",}", "invalid request JSON payload: trailing comma"),
        ("{\"model\":\"org/model\",\"messages\":NaN}", "invalid request JSON payload: expected value"),
        ("{\"model\":\"org/model\",\"messages\":\"\u{1}\"}", "invalid request JSON payload: control character"),
        ("\u{feff}{\"model\":\"org/model\"}", "invalid request JSON payload: expected value"),
    ];
    for (body, words) in bodies {
        let got = ask(&platform, "POST", "llm", CHAT, body).await;
        let (json, detail) = (got.json(), got.json()["detail"].clone());
        let error = &json["error"];
        let told = (got.status, error["code"].as_str(), error["type"].as_str());
        assert_eq!(told, (400, Some("bad_request"), Some("invalid_request_error")), "{body:?}: {json}");
        assert!(
            error["message"].as_str().unwrap().starts_with(words) && error["message"] == detail,
            "{body:?}: {json}"
        );
    }
    platform.is_idle().await;
}

#[tokio::test]
async fn a_model_that_nobody_has_is_not_found_and_none_is_a_bad_request() {
    let platform = Platform::start(&[], Wishes::default()).await;
    for (host, path) in [("llm", CHAT), ("embed", "/v1/embeddings"), ("image", "/generate"), ("image", IMAGES)] {
        for (body, status, code) in [
            ("{\"prompt\":\"p\"}", 400, "bad_request"),
            ("{\"model\":\"no/body\"}", 404, "model_not_found"),
            ("{\"model\":\"\"}", 404, "model_not_found"),
        ] {
            let got = ask(&platform, "POST", host, path, body).await;
            assert_eq!((got.status, got.json()["error"]["code"].as_str()), (status, Some(code)), "{host}{path} {body}");
        }
    }
}

#[tokio::test]
async fn a_body_nested_without_end_is_refused_before_any_instance_is_asked() {
    let instance = Scripted::start([]).await;
    let platform = Platform::start(&[&instance], Wishes::default()).await;
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let chat = format!("{{\"model\":\"org/model\",\"messages\":{deep}}}");
    for (host, path, body) in [("llm", CHAT, &chat), ("own-chute", "/run", &deep)] {
        let got = ask(&platform, "POST", host, path, body).await;
        assert!(got.status == 400 && got.text().contains("nested too deep"), "{}", got.text());
    }
    assert_eq!(instance.requests.lock().unwrap().len(), 0);
    platform.is_idle().await;
}

#[tokio::test]
async fn bytes_that_are_no_text_are_no_body() {
    let platform = Platform::start(&[], Wishes::default()).await;
    for body in [&b"{\"model\":\"\xff\"}"[..], b"\x1f\x8b\x08\x00", b"{\"model\":\"\xed\xa0\x80\"}", b"\0\0\0\0"] {
        let head = String::from_utf8(request(&platform, "POST", "llm", CHAT, "")).unwrap();
        let head = head.replace("Content-Length: 0", &format!("Content-Length: {}", body.len()));
        let mut raw = Raw::connect(&platform).await;
        raw.send(&[head.as_bytes(), body].concat()).await;
        let got = raw.answer().await;
        assert_eq!((got.status, got.json()["error"]["code"].as_str()), (400, Some("bad_request")));
    }
}

#[tokio::test]
async fn malformed_chunks_of_a_call_are_refused_before_any_instance_is_asked() {
    let instance = Scripted::start([]).await;
    let platform = Platform::start(&[&instance], Wishes::default()).await;
    for body in ["g\r\n{}\r\n0\r\n\r\n", "1\r\n{}\r\n0\r\n\r\n", "FFFFFFFFFFFFFFFFF\r\n{}"] {
        let head = String::from_utf8(request(&platform, "POST", "own-chute", "/run", "")).unwrap();
        let head = head.replace("Content-Length: 0", "Transfer-Encoding: chunked");
        let mut raw = Raw::connect(&platform).await;
        raw.send(format!("{head}{body}").as_bytes()).await;
        let got = raw.answer().await;
        assert_eq!((got.status, got.json()["error"]["code"].as_str()), (400, Some("bad_request")), "{body:?}");
        assert!(raw.closes().await);
    }
    assert_eq!(instance.requests.lock().unwrap().len(), 0);
    platform.is_idle().await;
}

#[tokio::test]
async fn look_alikes_of_a_key_open_nothing() {
    let platform = Platform::start(&[], Wishes::default()).await;
    let key = platform.key.clone();
    let changed = |place: usize| {
        let mut text = key.clone().into_bytes();
        text[place] = if text[place] == b'0' { b'1' } else { b'0' };
        String::from_utf8(text).unwrap()
    };
    let mut keys: Vec<String> = (0..key.len()).map(changed).collect();
    keys.extend([
        key.to_uppercase(),
        format!("{key}x"),
        key[..key.len() - 1].to_owned(),
        key.replacen('_', "%5f", 1),
        key.replace('.', ","),
        format!("{key}.{key}"),
        format!("cpk_{key}"),
        key.trim_start_matches("cpk_").to_owned(),
        "cpk_".into(),
        "cpk_..".into(),
        "x".repeat(5000),
    ]);
    for key in keys {
        let head = format!("POST {CHAT} HTTP/1.1\r\nHost: llm.{DOMAIN}\r\nAuthorization: Bearer {key}\r\n");
        let mut raw = Raw::connect(&platform).await;
        raw.send(format!("{head}Content-Length: 2\r\n\r\n{{}}").as_bytes()).await;
        assert_eq!(raw.answer().await.status, 401, "{key}");
    }
}

#[tokio::test]
async fn paths_of_a_slug_host_lead_nowhere_else() {
    let service = Service::start().await;
    let instance = Scripted::start([]).await;
    let platform = Platform::start(&[&instance], Wishes { api: Some(service.address), ..Wishes::default() }).await;
    for path in [
        "/../users/me",
        "/..%2fusers/me",
        "/%2e%2e/users/me",
        "/run/..",
        "/run/.",
        "/./run",
        "/run%2f",
        "/run%00",
        "/%72un",
        "/run;x",
        "/run/",
        "/RUN",
        "/.well-known/../run",
        "/\\run",
        "/run%0d%0aX: a",
        "/_metrics",
        "/api_keys/",
        "/chutes/",
    ] {
        let got = ask(&platform, "POST", "own-chute", path, "{}").await;
        assert_eq!((got.status, got.json()["error"]["code"].as_str()), (404, Some("unknown_cord")), "{path}");
    }
    assert_eq!(service.requests_with("").len() + instance.requests.lock().unwrap().len(), 0, "something was asked");
}

#[tokio::test]
async fn a_client_that_ends_its_side_before_the_answer_has_left() {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let instance = Scripted::start([Act::Fed(Arc::new(Mutex::new(receiver)))]).await;
    let platform = Platform::start(&[&instance], Wishes::default()).await;
    sender.send(content("one")).await.unwrap();
    let mut stream = TcpStream::connect(("127.0.0.1", platform.http)).await.unwrap();
    stream.write_all(&request(&platform, "POST", "llm", CHAT, &chat(true))).await.unwrap();
    let mut said = Vec::new();
    while !String::from_utf8_lossy(&said).contains("one") {
        assert_ne!(stream.read_buf(&mut said).await.unwrap(), 0);
    }
    stream.shutdown().await.unwrap();
    let records = platform.records(1).await;
    assert_eq!((records.len(), records[0].outcome, records[0].delivered), (1, Outcome::Aborted, true));
    // What it has is not all of the answer, and it has to see that.
    let _ = stream.read_to_end(&mut said).await;
    assert!(!said.ends_with(b"\r\n0\r\n\r\n"), "{}", String::from_utf8_lossy(&said));
    platform.is_idle().await;
}
