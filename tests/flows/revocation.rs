//! Revoked keys and used signatures are refused, whatever races with them.

use std::time::Duration;

use futures::{StreamExt, stream};
use protocol::headers;
use protocol::signing::{Covers, Keypair, inward_message};
use reqwest::{Client, RequestBuilder, StatusCode};
use serde_json::Value;
use stack::miner::Engine;
use stack::proof::Size;
use stack::{clock, screen};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::scene::{Scene, User};

/// Keys in use at the same time.
const WAVE: usize = 20;
/// Between two uses of a key.
const PAUSE: Duration = Duration::from_millis(20);
/// How long a revoked key may still be accepted.
const ALLOWED: Duration = Duration::from_secs(1);
/// The same while Redis is silent.
const STALE_AFTER: Duration = Duration::from_secs(3);
/// How long uses go on after the last moment at which a key may be accepted.
const AFTERWARDS: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(20);
const SIGNED: usize = 200;
const AT_ONCE: usize = 40;

/// One use of a key.
struct Use {
    started: Instant,
    status: StatusCode,
}

impl Use {
    fn accepted(&self) -> bool {
        self.status.is_success()
    }
}

/// Keys of one user, all in use again and again at all addresses in turn.
struct Wave {
    ids: Vec<String>,
    accepted: Vec<watch::Receiver<bool>>,
    stop: watch::Sender<bool>,
    users: JoinSet<(usize, Vec<Use>)>,
}

impl Wave {
    /// Makes the keys and uses them until each has been accepted.
    async fn start(scene: &mut Scene, user: &User, urls: &[String]) -> Self {
        let mut wave =
            Self { ids: Vec::new(), accepted: Vec::new(), stop: watch::Sender::new(false), users: JoinSet::new() };
        for number in 0..WAVE {
            let made = scene.admin(&["key", "create", "--user", &user.id, "--admin"]).await;
            wave.ids.push(made["api_key_id"].as_str().unwrap().to_owned());
            let (tell, accepted) = watch::channel(false);
            wave.accepted.push(accepted);
            let secret = made["secret_key"].as_str().unwrap().to_owned();
            let uses = use_key(scene.client(), urls.to_owned(), secret, tell, wave.stop.subscribe());
            wave.users.spawn(async move { (number, uses.await) });
        }
        for accepted in &mut wave.accepted {
            timeout(LONGEST, accepted.wait_for(|accepted| *accepted)).await.unwrap().unwrap();
        }
        wave
    }

    /// Revokes all keys; when the operator's command returned for each.
    async fn revoke(&self, scene: &mut Scene) -> Vec<Instant> {
        let mut returned = Vec::new();
        for id in &self.ids {
            scene.admin(&["key", "revoke", "--key", id]).await;
            returned.push(Instant::now());
        }
        returned
    }

    /// Uses the keys a little longer and shows that none was accepted later than allowed; the latest that was.
    async fn judge(mut self, returned: &[Instant], allowed: Duration) -> Duration {
        sleep(allowed + AFTERWARDS).await;
        self.stop.send_replace(true);
        let mut latest = Duration::ZERO;
        while let Some(user) = self.users.join_next().await {
            let (number, uses) = user.unwrap();
            let after = |one: &Use| one.started.saturating_duration_since(returned[number]);
            let (too_late, in_time): (Vec<Use>, Vec<Use>) = uses.into_iter().partition(|one| after(one) > allowed);
            assert!(!too_late.is_empty(), "nobody used key {number} late enough to tell");
            assert!(!too_late.iter().any(Use::accepted), "key {number} was accepted after {allowed:?}");
            latest = in_time.iter().filter(|one| one.accepted()).map(after).fold(latest, Duration::max);
        }
        latest
    }
}

async fn use_key(
    client: Client,
    urls: Vec<String>,
    secret: String,
    accepted: watch::Sender<bool>,
    mut stop: watch::Receiver<bool>,
) -> Vec<Use> {
    let mut uses = Vec::new();
    for url in urls.iter().cycle() {
        let started = Instant::now();
        let answer = client.get(url).bearer_auth(&secret).timeout(LONGEST).send().await.unwrap();
        uses.push(Use { started, status: answer.status() });
        accepted.send_if_modified(|seen| !std::mem::replace(seen, *seen || answer.status().is_success()));
        if timeout(PAUSE, stop.wait_for(|stop| *stop)).await.is_ok() {
            break;
        }
    }
    uses
}

/// A small thing to call that needs a key: the models of the text chute on its own host, at each gateway.
fn model_lists(scene: &Scene) -> Vec<String> {
    let slug = &scene.sample(Engine::Vllm).slug;
    (0..scene.gateways()).map(|number| format!("{}/v1/models", scene.url_at(slug, number))).collect()
}

#[tokio::test]
async fn a_revoked_key_is_refused_within_a_second_by_every_gateway() {
    let mut scene = Scene::start().await;
    let user = scene.unlimited_user("revoked", &[]).await;
    let urls = model_lists(&scene);
    let (waves, mut latest) = (Size::asked().pick(3, 50), Duration::ZERO);
    for _ in 0..waves {
        let wave = Wave::start(&mut scene, &user, &urls).await;
        let returned = wave.revoke(&mut scene).await;
        latest = latest.max(wave.judge(&returned, ALLOWED).await);
    }
    screen::say(&format!("{} revocations: the last accepted use began {latest:?} after its one", waves * WAVE));
}

#[tokio::test]
async fn a_revoked_key_is_refused_after_stale_after_while_redis_is_silent() {
    let mut scene = Scene::with_stale_after(STALE_AFTER).await;
    let user = scene.unlimited_user("revoked", &[]).await;
    let kept = scene.key(&user.id).await;
    let urls = model_lists(&scene);
    let (waves, mut latest) = (Size::asked().pick(1, 50), Duration::ZERO);
    for _ in 0..waves {
        let wave = Wave::start(&mut scene, &user, &urls).await;
        assert_eq!(status(scene.client().get(&urls[0]).bearer_auth(&kept)).await, StatusCode::OK);
        scene.freeze_redis();
        // What the gateway knows goes on serving for a while.
        let (known, body) = answer(scene.client().get(&urls[0]).bearer_auth(&kept)).await;
        assert_eq!(known, StatusCode::OK, "{body}");
        let returned = wave.revoke(&mut scene).await;
        let last = wave.judge(&returned, STALE_AFTER).await;
        assert!(last > Duration::ZERO, "no revocation raced with a use");
        latest = latest.max(last);
        assert_eq!(status(scene.client().get(&urls[0]).bearer_auth(&kept)).await, StatusCode::SERVICE_UNAVAILABLE);
        scene.thaw_redis();
        let back = Instant::now() + LONGEST;
        while status(scene.client().get(&urls[0]).bearer_auth(&kept)).await != StatusCode::OK {
            assert!(Instant::now() < back, "the gateway does not come back");
            sleep(PAUSE).await;
        }
    }
    screen::say(&format!("{} revocations in silence: the last accepted use began {latest:?} after", waves * WAVE));
}

#[tokio::test]
async fn signatures_of_one_hotkey_and_second_all_pass_once_and_never_twice() {
    let mut scene = Scene::start().await;
    let keypair = Keypair::from_seed([7; 32]);
    scene.unlimited_user("signer", &["--hotkey", keypair.hotkey().as_str()]).await;
    let (urls, client) = (model_lists(&scene), scene.client());
    let nonce = clock::now().timestamp().to_string();
    let message = inward_message(keypair.hotkey(), &nonce, Covers::Purpose("chutes"));
    let signatures: Vec<String> = (0..SIGNED).map(|_| keypair.sign(message.as_bytes()).to_string()).collect();
    let send = |shift: usize| {
        let request = |(number, signature): (usize, &String)| {
            let url = &urls[(number + shift) % urls.len()];
            let request = client.get(url).header(headers::HOTKEY, keypair.hotkey().as_str());
            answer(request.header(headers::NONCE, &nonce).header(headers::SIGNATURE, signature))
        };
        let requests: Vec<_> = signatures.iter().enumerate().map(request).collect();
        stream::iter(requests).buffer_unordered(AT_ONCE).collect::<Vec<(StatusCode, Value)>>()
    };
    for (status, body) in send(0).await {
        assert_eq!(status, StatusCode::OK, "{body}");
    }
    // Each goes to the other gateway this time: what one has seen, all have.
    for (status, body) in send(1).await {
        assert_eq!((status, &body["error"]["code"]), (StatusCode::UNAUTHORIZED, &"replayed_signature".into()));
    }
}

async fn answer(request: RequestBuilder) -> (StatusCode, Value) {
    let answer = request.timeout(LONGEST).send().await.unwrap();
    (answer.status(), answer.json().await.unwrap())
}

async fn status(request: RequestBuilder) -> StatusCode {
    answer(request).await.0
}
