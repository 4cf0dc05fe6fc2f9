//! One platform for one test, and the short words that the test says to it.

use std::time::Duration;

use protocol::signing::{Hotkey, Keypair};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use sqlx::PgPool;
use stack::children::{Child, Launch};
use stack::miner::{Behaviour, ClosedEarly, Engine};
use stack::platform::{DOMAIN, Options, Platform};
use stack::ports::Ports;
use stack::programs::Programs;
use stack::sample::{Chute, OFFICIAL_USER};
use stack::screen;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

const LONGEST: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(30);
/// The permission bit of those who are not limited in their rate.
const UNLIMITED: &str = "32";

/// A running platform whose folder goes with it, unless the test fails.
pub(crate) struct Scene {
    /// Everything that runs.
    pub(crate) platform: Platform,
    /// Control's database, to read.
    pub(crate) db: PgPool,
    folder: TempDir,
}

/// A user and a key that may do all the user may.
pub(crate) struct User {
    pub(crate) id: String,
    pub(crate) key: String,
}

/// A chute that a test made.
pub(crate) struct Made {
    pub(crate) id: String,
    pub(crate) slug: String,
}

impl Drop for Scene {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.folder.disable_cleanup(true);
            screen::say(&format!("logs and data of the failed test: {}", self.folder.path().display()));
        }
    }
}

impl Scene {
    pub(crate) async fn start() -> Self {
        Self::with(|_| ()).await
    }

    /// With a proxy before Redis that can be frozen, and gateways that trust what they know for this long then.
    pub(crate) async fn with_stale_after(stale_after: Duration) -> Self {
        let seconds = stale_after.as_secs_f64().to_string();
        Self::with(|options| {
            options.freezable_redis = true;
            options.gateway_settings.push(("GATEWAY_STALE_AFTER".into(), seconds));
        })
        .await
    }

    /// With gateways of which one setting is not the default.
    pub(crate) async fn with_setting(name: &str, value: &str) -> Self {
        Self::with(|options| options.gateway_settings.push((name.into(), value.into()))).await
    }

    /// With other options than the usual ones.
    pub(crate) async fn with(adapt: impl FnOnce(&mut Options)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut options = Options::new(folder.path().to_owned(), Programs::find().await.unwrap());
        adapt(&mut options);
        let platform = match Platform::start(options).await {
            Ok(platform) => platform,
            Err(error) => panic!("{error:?}\nlogs and data: {}", folder.keep().display()),
        };
        let db = PgPool::connect(platform.postgres.url()).await.unwrap();
        Self { platform, db, folder }
    }

    /// A host's address at the first gateway.
    pub(crate) fn url(&self, label: &str) -> String {
        self.url_at(label, 0)
    }

    /// A host's address at any gateway.
    pub(crate) fn url_at(&self, label: &str, gateway: usize) -> String {
        self.platform.url(label, gateway)
    }

    /// A host's address without TLS.
    pub(crate) fn plain_url(&self, label: &str) -> String {
        self.plain_url_at(label, 0)
    }

    /// A host's address without TLS at any gateway.
    pub(crate) fn plain_url_at(&self, label: &str, gateway: usize) -> String {
        format!("http://{label}.{DOMAIN}:{}", self.platform.gateways[gateway].http_port)
    }

    pub(crate) fn gateways(&self) -> usize {
        self.platform.gateways.len()
    }

    /// The file with the certificate to trust.
    pub(crate) fn authority(&self) -> String {
        self.platform.certificates.authority.display().to_string()
    }

    pub(crate) fn client(&self) -> Client {
        self.platform.web().unwrap()
    }

    pub(crate) fn sample(&self, engine: Engine) -> &Chute {
        self.platform.sample.chute(engine)
    }

    pub(crate) fn sample_user(&self) -> protocol::ids::UserId {
        self.platform.sample.user
    }

    pub(crate) fn sample_key(&self) -> String {
        self.platform.sample.api_key.clone()
    }

    pub(crate) fn validator(&self) -> Hotkey {
        hotkey(&self.platform.secrets.call_seed)
    }

    pub(crate) fn miner(&self) -> Hotkey {
        hotkey(&self.platform.secrets.miner_seed)
    }

    /// What a script is to do at a host, as the OpenAI client wants it, with `more` over it.
    pub(crate) fn task(&self, base_url: &str, key: &str, engine: Engine, more: &Value) -> Value {
        let mut task = json!({
            "base_url": format!("{base_url}/v1"), "ca": self.authority(), "api_key": key,
            "model": self.sample(engine).model,
        });
        task.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        task
    }

    /// An operator's command.
    pub(crate) async fn admin(&mut self, command: &[&str]) -> Value {
        self.platform.admin.run(command).await.unwrap()
    }

    /// A new user with this quota and a key.
    pub(crate) async fn user(&mut self, name: &str, calls: u32, more: &[&str]) -> User {
        let command = [&["user", "create", "--username", name], more].concat();
        let id = self.admin(&command).await["user_id"].as_str().unwrap().to_owned();
        self.admin(&["quota", "set", "--user", &id, "--calls", &calls.to_string()]).await;
        let key = self.key(&id).await;
        User { id, key }
    }

    /// A new user without limits but a large allowance.
    pub(crate) async fn unlimited_user(&mut self, name: &str, more: &[&str]) -> User {
        let more = [&["--permissions", UNLIMITED], more].concat();
        self.user(name, 1_000_000, &more).await
    }

    /// Another key of a user.
    pub(crate) async fn key(&mut self, user: &str) -> String {
        let made = self.admin(&["key", "create", "--user", user, "--admin"]).await;
        made["secret_key"].as_str().unwrap().to_owned()
    }

    /// A new public chute of the official user.
    pub(crate) async fn chute(&mut self, specification: Value) -> Made {
        let image = ["image", "create", "--user", OFFICIAL_USER, "--name", "test", "--tag", "1.0"];
        let mut specification = specification;
        specification["image"] = self.admin(&image).await["image_id"].clone();
        specification["user"] = OFFICIAL_USER.into();
        specification["public"] = true.into();
        let made = self.admin(&["chute", "create", "--spec", &specification.to_string()]).await;
        Made { id: made["chute_id"].as_str().unwrap().to_owned(), slug: made["slug"].as_str().unwrap().to_owned() }
    }

    /// Starts an instance that is given its port, its miner and its validator, and adds it to a chute.
    pub(crate) async fn instance(&mut self, chute: &Made, launch: Launch, key: &str) -> Child {
        let port = Ports::of_folder(&self.platform.folder).unwrap().claim("instance").unwrap().to_string();
        let (miner, validator) = (self.miner().to_string(), self.validator().to_string());
        let launch = launch.arguments([&port, &miner, &validator].map(String::clone)).variable("INSTANCE_KEY", key);
        let child = self.platform.spawner.start(&launch).await.unwrap();
        let deadline = Instant::now() + LONGEST;
        while TcpStream::connect(format!("127.0.0.1:{port}")).await.is_err() {
            assert!(Instant::now() < deadline, "the instance does not listen");
            sleep(POLL).await;
        }
        let place = ["instance", "add", "--chute", &chute.id, "--host", "127.0.0.1", "--port", &port];
        let owner = ["--miner-uid", "7", "--hotkey", &miner, "--key", key];
        self.admin(&[&place[..], &owner[..]].concat()).await;
        child
    }

    /// Posts JSON to a chute's own host as the sample user; tries again while no instance is known.
    pub(crate) async fn post(&self, slug: &str, path: &str, body: &Value) -> reqwest::Response {
        let url = format!("{}{path}", self.url(slug));
        let deadline = Instant::now() + LONGEST;
        loop {
            let request = self.client().post(&url).bearer_auth(self.sample_key()).json(body);
            let answer = request.timeout(LONGEST).send().await.unwrap();
            let early = [StatusCode::NOT_FOUND, StatusCode::SERVICE_UNAVAILABLE].contains(&answer.status());
            if !early || Instant::now() > deadline {
                return answer;
            }
            sleep(POLL).await;
        }
    }

    /// Tells all instances of a sample chute how to behave.
    pub(crate) async fn behave(&self, engine: Engine, behaviour: &Behaviour) {
        for instance in &self.sample(engine).instances {
            self.platform.miner.set(instance.port, behaviour).await.unwrap();
        }
    }

    /// The answer of a sample chute that was not waited for.
    pub(crate) async fn closed_early(&self, engine: Engine) -> ClosedEarly {
        let deadline = Instant::now() + LONGEST;
        loop {
            for instance in &self.sample(engine).instances {
                let counters = self.platform.miner.counters(instance.port).await.unwrap();
                if let Some(closed) = counters.closed_early.last() {
                    return *closed;
                }
            }
            assert!(Instant::now() < deadline, "the instances were not told that the client left");
            sleep(POLL).await;
        }
    }

    /// Holds every byte between the gateways and Redis.
    pub(crate) fn freeze_redis(&self) {
        self.platform.redis_proxy.as_ref().unwrap().freeze();
    }

    /// Lets the bytes pass again.
    pub(crate) fn thaw_redis(&self) {
        self.platform.redis_proxy.as_ref().unwrap().thaw();
    }
}

fn hotkey(seed: &str) -> Hotkey {
    Keypair::from_seed_hex(seed).unwrap().hotkey().clone()
}
