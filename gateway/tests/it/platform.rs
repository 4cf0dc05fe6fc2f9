//! A gateway process with everything it needs around it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use gateway::clock::Clock;
use protocol::credential::{ApiKey, Scopes};
use protocol::directory::{Chute, Cord, Directory, Instance, Template};
use protocol::envelope::Generation;
use protocol::ids::{ChuteId, ImageId, InstanceId, UserId};
use protocol::keys::Key;
use protocol::principal::{Bucket, Complete, FundsEntry, KeyEntry, UserEntry, Versioned};
use protocol::sealing::DirectoryKey;
use protocol::signing::Keypair;
use protocol::slug::Slug;
use protocol::usage::{Entry, Record};
use redis::Commands;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::instance::Scripted;
use crate::ports::free_port;
use crate::redis_server::RedisServer;

/// The domain of the gateway under test.
pub(crate) const DOMAIN: &str = "chutes.localhost";

/// Calls that an instance of the chutes takes at once.
pub(crate) const CONCURRENCY: usize = 8;

const DIRECTORY_KEY: &str = "11";
const CALL_SEED: &str = "22";
const SESSION_KEY: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

/// What a test may want otherwise.
#[derive(Default)]
pub(crate) struct Wishes {
    /// Further settings of the gateway.
    pub(crate) settings: Vec<String>,
    /// Changes of the user.
    pub(crate) user: Option<fn(&mut UserEntry)>,
    /// Changes of the directory.
    pub(crate) directory: Option<fn(&mut Directory)>,
    /// What the user's key may do.
    pub(crate) scopes: Option<Scopes>,
    /// Where the API is.
    pub(crate) api: Option<std::net::SocketAddr>,
    /// Where the gateway logs to, instead of the test's own output.
    pub(crate) log: Option<std::fs::File>,
}

/// A running gateway.
pub(crate) struct Platform {
    /// Its Redis.
    pub(crate) redis: RedisServer,
    /// Port of plain HTTP.
    pub(crate) http: u16,
    /// Port of TLS.
    pub(crate) https: u16,
    /// Port of the internal listener.
    pub(crate) internal: u16,
    /// A key of the user, revealed.
    pub(crate) key: String,
    /// Whose it is.
    pub(crate) user: UserId,
    /// The LLM chute, at `llm-chute`.
    pub(crate) llm: ChuteId,
    /// Certificate of the authority, PEM.
    pub(crate) authority: String,
    process: Process,
    arguments: Vec<String>,
    folder: TempDir,
}

/// A gateway process; dropping it kills it.
pub(crate) struct Process(Child);

impl Process {
    fn start(arguments: &[String], log: Stdio) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gateway"));
        Self(command.args(arguments).stdin(Stdio::null()).stderr(log).spawn().unwrap())
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.0.id()).unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    /// Waits until it has ended, and says whether it ended well.
    pub(crate) async fn ended(&mut self) -> bool {
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.success();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// What it logged, once it has ended; not of the first process, which logs to the test's own output.
    pub(crate) fn log(&mut self) -> String {
        std::io::read_to_string(self.0.stderr.take().unwrap()).unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Platform {
    /// Starts a gateway whose chutes run on these instances, and waits until it serves.
    pub(crate) async fn start(instances: &[&Scripted], wishes: Wishes) -> Self {
        // Another test of this process may have installed it before.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (redis, folder) = (RedisServer::start(), tempfile::tempdir().unwrap());
        let user = UserId::random();
        let key = ApiKey::generate(user);
        let scopes = wishes.scopes.unwrap_or(Scopes::Admin);
        publish_principals(&redis, user, &key, scopes, wishes.user);
        let (llm, own) = (ChuteId::random(), ChuteId::random());
        let mut directory = directory(user, llm, own, instances);
        if let Some(change) = wishes.directory {
            change(&mut directory);
        }
        let snapshot = directory.to_snapshot(1, Clock::default().now(), false);
        redis.connection().set::<_, _, ()>(Key::directory().as_str(), snapshot).unwrap();
        let authority = certificates(&folder.path().join("certificates"));
        let [http, https, internal] = [free_port(), free_port(), free_port()];
        let api = wishes.api.unwrap_or_else(|| ([127, 0, 0, 1], 9).into());
        let mut arguments = arguments([http, https, internal], &redis, folder.path(), api);
        arguments
            .extend(["--upgrade-socket".to_owned(), folder.path().join("upgrade/upgrade.sock").display().to_string()]);
        arguments.extend(wishes.settings);
        let process = Process::start(&arguments, wishes.log.map_or_else(Stdio::inherit, Stdio::from));
        let secret = key.reveal().to_owned();
        let platform =
            Self { redis, http, https, internal, key: secret, user, llm, authority, process, arguments, folder };
        platform.wait_until_ready().await;
        platform
    }

    /// Another key of this user, who may be new.
    pub(crate) fn another_key(&self, user: UserId) -> String {
        let key = ApiKey::generate(user);
        publish_principals(&self.redis, user, &key, Scopes::Admin, None);
        key.reveal().to_owned()
    }

    /// The records that reached Redis, once there are so many.
    pub(crate) async fn records(&self, wanted: usize) -> Vec<Record> {
        let mut redis = self.redis.connection();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        loop {
            let stream: redis::streams::StreamRangeReply = redis.xrange_all(Key::usage().as_str()).unwrap();
            let records: Vec<Record> = stream.ids.iter().filter_map(record).collect();
            if records.len() >= wanted {
                return records;
            }
            assert!(tokio::time::Instant::now() < deadline, "{} of {wanted} records came", records.len());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// A metric of the gateway, with its labels as they are written; 0 while it was never counted.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let text = self.metrics().await;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().unwrap())
    }

    /// Waits until a metric is as wanted.
    pub(crate) async fn until(&self, name: &str, wanted: impl Fn(f64) -> bool) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        loop {
            let value = self.metric(name).await;
            if wanted(value) {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "{name} stays at {value}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The process.
    pub(crate) fn pid(&self) -> u32 {
        self.process.0.id()
    }

    /// The memory that the gateway has in use, in bytes.
    pub(crate) fn resident(&self) -> usize {
        let sizes = std::fs::read_to_string(format!("/proc/{}/statm", self.process.0.id())).unwrap();
        sizes.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * rustix::param::page_size()
    }

    /// What the gateway says of itself.
    pub(crate) async fn metrics(&self) -> String {
        let url = format!("http://127.0.0.1:{}/metrics", self.internal);
        let client = reqwest::Client::builder().build().unwrap();
        client.get(url).bearer_auth("internal").send().await.unwrap().text().await.unwrap()
    }

    /// Waits until the gateway lives and has no call in flight.
    pub(crate) async fn is_idle(&self) {
        self.until("chutes_gateway_calls_in_flight", |calls| calls == 0.0).await;
    }

    /// Asks the gateway to stop.
    pub(crate) fn terminate(&self) {
        self.process.signal(rustix::process::Signal::TERM);
    }

    /// Waits until the gateway has ended, and says whether it ended well.
    pub(crate) async fn ended(&mut self) -> bool {
        self.process.ended().await
    }

    /// Where one gateway process hands over to the next.
    pub(crate) fn upgrade_socket(&self) -> std::path::PathBuf {
        self.folder.path().join("upgrade/upgrade.sock")
    }

    /// Starts another process with these settings over those of the first.
    pub(crate) fn start_another(&self, settings: &[&str]) -> Process {
        let kept = self.arguments.chunks(2).filter(|pair| !settings.contains(&pair[0].as_str())).flatten().cloned();
        let arguments: Vec<String> = kept.chain(settings.iter().map(|word| (*word).to_owned())).collect();
        Process::start(&arguments, Stdio::piped())
    }

    /// Has the gateway replaced by another process; the one that is replaced.
    pub(crate) async fn upgrade(&mut self) -> Process {
        let path = self.folder.path().join("notify");
        let _ = std::fs::remove_file(&path);
        let manager = tokio::net::UnixDatagram::bind(&path).unwrap();
        let mut next = self.start_another(&["--upgrade", "--notify-socket", path.to_str().unwrap()]);
        let mut words = [0; 100];
        tokio::select! {
            heard = manager.recv(&mut words) => assert!(words[..heard.unwrap()].starts_with(b"READY=1\n")),
            _ = next.ended() => panic!("the next gateway ended: {}", next.log()),
        }
        std::mem::replace(&mut self.process, next)
    }

    /// Goes on with this process, once it serves.
    pub(crate) async fn continue_with(&mut self, next: Process) {
        self.process = next;
        self.wait_until_ready().await;
    }

    /// Kills the gateway without a chance to tidy up.
    pub(crate) async fn kill(&mut self) {
        self.process.signal(rustix::process::Signal::KILL);
        self.process.ended().await;
    }

    /// Gives the gateway another certificate.
    pub(crate) fn change_certificate(&mut self) {
        self.authority = certificates(&self.folder.path().join("certificates"));
    }

    /// Starts a second gateway on the same Redis, and waits until it serves.
    pub(crate) async fn second(&self, settings: &[String]) -> Second {
        let ports = [free_port(), free_port(), free_port()];
        let api = ([127, 0, 0, 1], 9).into();
        let mut arguments = arguments(ports, &self.redis, self.folder.path(), api);
        arguments.extend_from_slice(settings);
        let process = Process::start(&arguments, Stdio::inherit());
        wait_until_ready(ports).await;
        Second { http: ports[0], _process: process }
    }

    async fn wait_until_ready(&self) {
        wait_until_ready([self.http, self.https, self.internal]).await;
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        while tokio::net::UnixStream::connect(self.upgrade_socket()).await.is_err() {
            assert!(tokio::time::Instant::now() < deadline, "the gateway cannot be upgraded");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// A gateway beside that of a platform.
pub(crate) struct Second {
    /// Port of plain HTTP.
    pub(crate) http: u16,
    _process: Process,
}

/// What a gateway with these ports for plain HTTP, TLS and internal use is told.
fn arguments(
    [http, https, internal]: [u16; 3],
    redis: &RedisServer,
    folder: &std::path::Path,
    api: std::net::SocketAddr,
) -> Vec<String> {
    let path = |name: &str| folder.join(name).display().to_string();
    [
        &["--domain", DOMAIN, "--redis-url", &redis.url(), "--control-url", "http://127.0.0.1:9"][..],
        &["--http", &format!("127.0.0.1:{http}"), "--https", &format!("127.0.0.1:{https}")],
        &["--internal", &format!("127.0.0.1:{internal}"), "--internal-credential", "internal"],
        &["--directory-key", &DIRECTORY_KEY.repeat(32), "--call-key-seed", &CALL_SEED.repeat(32)],
        &["--session-public-key", SESSION_KEY, "--threads", "2", "--log", "warn"],
        &["--api-upstream", &api.to_string(), "--certificates", &path("certificates")],
        &["--log-folder", &path("log")],
    ]
    .concat()
    .into_iter()
    .map(str::to_owned)
    .collect()
}

/// Whether both public ports are open; they are opened beside the internal one, in no order.
async fn listens(http: u16, https: u16) -> bool {
    let (http, https) = (TcpStream::connect(("127.0.0.1", http)).await, TcpStream::connect(("127.0.0.1", https)).await);
    http.is_ok() && https.is_ok()
}

async fn wait_until_ready([http, https, internal]: [u16; 3]) {
    let client = reqwest::Client::builder().build().unwrap();
    let health = format!("http://127.0.0.1:{internal}/health");
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let answer = client.get(&health).send().await;
        if answer.as_ref().is_ok_and(|answer| answer.status().is_success()) && listens(http, https).await {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "the gateway is not ready: {answer:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn record(entry: &redis::streams::StreamId) -> Option<Record> {
    let field = |name: &str| match &entry.map[name] {
        redis::Value::BulkString(text) => text.as_slice(),
        other => panic!("{name} is {other:?}"),
    };
    match Entry::read(|name| entry.map.contains_key(name).then(|| field(name))).unwrap() {
        Entry::Final { record, .. } => Some(*record),
        Entry::Gap { .. } | Entry::Beat { .. } => None,
    }
}

fn publish_principals(
    redis: &RedisServer,
    user: UserId,
    key: &ApiKey,
    scopes: Scopes,
    change: Option<fn(&mut UserEntry)>,
) {
    let mut entry = UserEntry {
        id: user,
        username: "tester".into(),
        generation: 1,
        permissions: 0,
        rate_per_minute: None,
        max_concurrent: None,
        quotas: BTreeMap::from([(Bucket::Default, 1000)]),
        deleted: false,
    };
    if let Some(change) = change {
        change(&mut entry);
    }
    let held = KeyEntry { id: key.id(), hash: key.hash(), user, scopes, revoked: false };
    let funds = FundsEntry {
        balance: 0,
        day: Clock::default().now().date_naive(),
        used: BTreeMap::new(),
        marks: BTreeMap::new(),
    };
    put(redis, &Key::user(user), entry);
    put(redis, &Key::api_key(key.id()), held);
    put(redis, &Key::funds(user), funds);
    put(redis, &Key::principals_complete(), Complete { users: 1, keys: 1, forced: false });
}

fn put<T: Serialize + DeserializeOwned>(redis: &RedisServer, key: &Key, entry: T) {
    let fields = Versioned { version: 1, entry }.to_fields();
    redis.connection().hset_multiple::<_, _, _, ()>(key.as_str(), &fields).unwrap();
}

fn cord(function: &str, path: &str, method: &str, stream: bool, passthrough: bool) -> Cord {
    Cord {
        function: function.into(),
        path: format!("/{function}"),
        public_path: Some(path.into()),
        public_method: method.into(),
        stream,
        passthrough,
        content_type: None,
    }
}

fn directory(owner: UserId, llm: ChuteId, own: ChuteId, instances: &[&Scripted]) -> Directory {
    let instances: Vec<Instance> = instances.iter().map(|scripted| instance(scripted)).collect();
    let chute = |id, name: &str, slug: &str, template, cords| Chute {
        id,
        name: name.into(),
        slug: Slug::parse(slug).unwrap(),
        owner,
        public: true,
        shares: vec![],
        template,
        cords,
        image: ImageId::random(),
        image_owner: owner,
        model: Some(serde_json::json!({ "id": name, "object": "model" })),
        price: None,
        concurrency: CONCURRENCY as u32,
        multiplier: 1.5,
        invocations: 0,
        rate_per_minute: None,
        max_concurrent: None,
        maintenance: false,
        instances: instances.clone(),
    };
    let llm_cords = vec![
        cord("chat_stream", "/v1/chat/completions", "POST", true, true),
        cord("chat", "/v1/chat/completions", "POST", false, true),
    ];
    let own_cords = vec![
        cord("run", "/run", "POST", false, false),
        cord("lines", "/lines", "POST", true, false),
        cord("hello", "/hello", "GET", false, true),
    ];
    Directory {
        chutes: vec![
            chute(llm, "org/model", "llm-chute", Some(Template::Vllm), llm_cords),
            chute(own, "own", "own-chute", None, own_cords),
        ],
        official_users: vec![owner],
        aliases: BTreeMap::new(),
    }
}

fn instance(scripted: &Scripted) -> Instance {
    let id = InstanceId::random();
    let key = DirectoryKey::from_hex(&DIRECTORY_KEY.repeat(32)).unwrap().seal(&scripted.key, id, 1);
    Instance {
        id,
        host: scripted.address.ip().to_string(),
        port: scripted.address.port(),
        miner_uid: 7,
        hotkey: Keypair::from_seed([9; 32]).hotkey().clone(),
        generation: Generation::Sdk03,
        version: 1,
        key,
    }
}

/// Writes a wildcard certificate and says by whom it is signed.
fn certificates(folder: &Path) -> String {
    std::fs::create_dir_all(folder).unwrap();
    let signed = rcgen::generate_simple_self_signed([format!("*.{DOMAIN}")]).unwrap();
    std::fs::write(folder.join(format!("_.{DOMAIN}.crt")), signed.cert.pem()).unwrap();
    std::fs::write(folder.join(format!("_.{DOMAIN}.key")), signed.signing_key.serialize_pem()).unwrap();
    signed.cert.pem()
}
