//! The public and the internal listener over real sockets.

use control::clients::store::Store;
use control::config::Secret;
use control::db;
use control::http;
use control::state::State;
use protocol::ids::UserId;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::world::{ALICE, World};

const CREDENTIAL: &str = "open-sesame";

/// A listener that ends with the test.
struct Served {
    address: std::net::SocketAddr,
    _tasks: JoinSet<anyhow::Result<()>>,
}

impl Served {
    async fn new(router: axum::Router) -> Self {
        let listener = http::listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(http::serve(listener, router, CancellationToken::new()));
        Self { address, _tasks: tasks }
    }

    async fn public(state: &State) -> Self {
        // No route of these tests asks the store.
        let store = Store::new("http://127.0.0.1:9", "none", "auto", "none", "none");
        Self::new(http::public(state.clone(), store)).await
    }

    async fn internal(state: &State) -> Self {
        Self::new(http::internal(state.clone(), CREDENTIAL.parse::<Secret>().unwrap())).await
    }

    /// Status and body of a GET.
    async fn get(&self, path: &str, authorization: Option<&str>) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let authorization = authorization.map(|value| format!("Authorization: {value}\r\n")).unwrap_or_default();
        stream.write_all(format!("GET {path} HTTP/1.0\r\n{authorization}\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }
}

/// A state whose Postgres is away.
fn without_postgres(state: &State) -> State {
    State { db: db::pool("postgres:///none?host=/nowhere&user=nobody").unwrap(), ..state.clone() }
}

#[tokio::test]
async fn ping_answers_pong_and_503_when_postgres_is_away() {
    let world = World::new().await;
    let served = Served::public(&world.state).await;
    assert_eq!(served.get("/ping", None).await, (200, r#"{"message":"pong"}"#.to_owned()));
    let served = Served::public(&without_postgres(&world.state)).await;
    assert_eq!(served.get("/ping", None).await, (503, r#"{"detail":"Database connectivity problems"}"#.to_owned()));
}

#[tokio::test]
async fn s11_metrics_and_look_ups_are_not_on_the_public_listener() {
    let world = World::new().await;
    let served = Served::public(&world.state).await;
    let credential = format!("Bearer {CREDENTIAL}");
    for path in ["/_metrics", "/metrics", "/health", "/internal/principals/user/x", "/nowhere"] {
        assert_eq!(served.get(path, Some(&credential)).await.0, 404, "{path}");
    }
}

#[tokio::test]
async fn the_internal_listener_wants_its_credential_except_for_health() {
    let world = World::new().await;
    let served = Served::internal(&world.state).await;
    let wanted = format!("/internal/principals/user/{}", UserId::random());
    for path in ["/metrics", &wanted] {
        for wrong in [None, Some("Bearer wrong"), Some("Bearer open"), Some("Bearer "), Some("open-sesame again")] {
            assert_eq!(served.get(path, wrong).await.0, 401, "{path} {wrong:?}");
        }
    }
    assert_eq!(served.get("/health", None).await.0, 200);
    let (status, text) = served.get("/metrics", Some(&format!("Bearer {CREDENTIAL}"))).await;
    assert_eq!(status, 200);
    assert!(text.contains("chutes_control_directory_version"), "{text}");
}

#[tokio::test]
async fn a_gateway_finds_a_principal_with_the_fields_of_redis() {
    let world = World::new().await;
    let user = world.run(&["user", "create", "--username", "jon", "--hotkey", ALICE]).await;
    let key = world.run(&["key", "create", "--user", "jon", "--admin"]).await;
    let user = user["user_id"].as_str().unwrap();
    let served = Served::internal(&world.state).await;
    let credential = format!("Bearer {CREDENTIAL}");
    let key = key["api_key_id"].as_str().unwrap().replace('-', "");
    for (path, field, expected) in [
        (format!("key/{key}"), "user", user),
        (format!("user/{user}"), "username", "jon"),
        (format!("hotkey/{ALICE}"), "user", user),
        (format!("funds/{user}"), "balance", "0"),
    ] {
        let (status, body) = served.get(&format!("/internal/principals/{path}"), Some(&credential)).await;
        assert_eq!(status, 200, "{path}");
        let body: Value = serde_json::from_str(&body).unwrap();
        assert!(body["v"].as_u64().unwrap() >= 1, "{body}");
        assert_eq!(body["d"][field], expected, "{body}");
    }
    let nobody = UserId::random();
    for path in [format!("user/{nobody}"), "user/x".to_owned(), format!("image/{nobody}"), "hotkey/5x".to_owned()] {
        assert_eq!(served.get(&format!("/internal/principals/{path}"), Some(&credential)).await.0, 404, "{path}");
    }
    let away = Served::internal(&without_postgres(&world.state)).await;
    assert_eq!(away.get(&format!("/internal/principals/user/{nobody}"), Some(&credential)).await.0, 503);
}
