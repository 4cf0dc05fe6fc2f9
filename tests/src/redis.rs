//! A private Redis with one user per program.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use protocol::keys::{Key, LEASE_PREFIXES, PRINCIPAL_PREFIXES};
use rustix::process::Signal;

use crate::children::{Child, Launch, Spawner};
use crate::private;
use crate::secrets::Secrets;

const READY: Duration = Duration::from_secs(20);
const STOP: Duration = Duration::from_secs(20);
/// Folder of what a durable one writes down.
const WRITTEN: &str = "written";

/// A program that talks to Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    /// Any role of control.
    Control,
    /// Any gateway.
    Gateway,
}

/// A running Redis; it keeps nothing on disk unless asked to.
pub struct Redis {
    folder: PathBuf,
    launch: Launch,
    child: Child,
    /// Its port on 127.0.0.1.
    pub port: u16,
    urls: [String; 2],
}

impl Redis {
    /// Starts Redis in a folder and waits until it answers; a `durable` one writes down what it is told.
    ///
    /// # Errors
    /// When it cannot be started or does not answer.
    pub async fn start(
        folder: &Path,
        durable: bool,
        port: u16,
        secrets: &Secrets,
        spawner: &Spawner,
    ) -> anyhow::Result<Self> {
        let folder = folder.join("redis");
        private::make_folder(&folder)?;
        let users = folder.join("users.acl");
        private::write(&users, users_file(secrets).as_bytes())?;
        let configuration = folder.join("redis.conf");
        private::write(&configuration, configuration_file(&folder, &users, durable, port).as_bytes())?;
        let program = find_program()?;
        let launch = Launch::new("redis", program).arguments([configuration.display().to_string()]);
        let child = spawner.start(&launch).await?;
        let mut redis = Self { folder, launch, child, port, urls: urls(secrets, port) };
        redis.wait_until_ready().await.with_context(|| format!("see {}", spawner.log("redis").display()))?;
        Ok(redis)
    }

    /// The address with the password of one user.
    #[must_use]
    pub fn url(&self, user: User) -> &str {
        match user {
            User::Control => &self.urls[0],
            User::Gateway => &self.urls[1],
        }
    }

    /// The address of one user behind another port.
    #[must_use]
    pub fn url_through(&self, user: User, port: u16) -> String {
        self.url(user).replace(&format!(":{}/", self.port), &format!(":{port}/"))
    }

    /// The process, for faults.
    pub fn process(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Kills it and starts an empty one in its place.
    ///
    /// # Errors
    /// When the new one does not answer.
    pub async fn replace_by_empty(&mut self, spawner: &Spawner) -> anyhow::Result<()> {
        self.child.kill()?;
        self.forget()?;
        self.start_again(spawner).await
    }

    /// Removes what one that ended has written down.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn forget(&self) -> anyhow::Result<()> {
        match fs::remove_dir_all(self.folder.join(WRITTEN)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error).context("emptying redis"),
            _ => Ok(()),
        }
    }

    /// Takes the last bytes from what one that ended has written down, as a machine does that fails before they are on
    /// its disk.
    ///
    /// # Errors
    /// When nothing is written down.
    pub fn lose_the_last(&self, bytes: u64) -> anyhow::Result<()> {
        let number = |path: &Path| -> Option<u64> {
            path.file_name()?.to_str()?.strip_suffix(".incr.aof")?.rsplit('.').next()?.parse().ok()
        };
        let files = fs::read_dir(self.folder.join(WRITTEN)).context("redis has written down nothing")?;
        let paths = files.map(|file| file.map(|file| file.path())).collect::<Result<Vec<PathBuf>, _>>()?;
        let last = paths.into_iter().filter(|path| number(path).is_some()).max_by_key(|path| number(path));
        let file = fs::OpenOptions::new().write(true).open(last.context("redis has no newest file")?)?;
        file.set_len(file.metadata()?.len().saturating_sub(bytes)).context("cutting what redis wrote down")
    }

    /// Starts it again after it ended: with what it wrote down, empty if that is nothing.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn start_again(&mut self, spawner: &Spawner) -> anyhow::Result<()> {
        self.child = spawner.start(&self.launch).await?;
        self.wait_until_ready().await
    }

    /// Stops it.
    ///
    /// # Errors
    /// When it had to be killed.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        self.child.stop(Signal::TERM, STOP).await
    }

    async fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let client = redis::Client::open(self.url(User::Control))?;
        let deadline = tokio::time::Instant::now() + READY;
        loop {
            if let Some(status) = self.child.ended()? {
                bail!("redis ended at once ({status})");
            }
            let ask = async {
                let mut connection = client.get_multiplexed_async_connection().await?;
                redis::cmd("PING").query_async::<String>(&mut connection).await
            };
            match tokio::time::timeout(Duration::from_secs(2), ask).await {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(error)) if tokio::time::Instant::now() > deadline => {
                    return Err(error).context("redis does not answer");
                }
                Err(_) if tokio::time::Instant::now() > deadline => bail!("redis does not answer"),
                Ok(Err(_)) | Err(_) => tokio::time::sleep(Duration::from_millis(30)).await,
            }
        }
    }
}

fn urls(secrets: &Secrets, port: u16) -> [String; 2] {
    let url = |user: &str, password: &str| format!("redis://{user}:{password}@127.0.0.1:{port}/?protocol=resp3");
    [url("control", &secrets.redis_control), url("gateway", &secrets.redis_gateway)]
}

fn find_program() -> anyhow::Result<PathBuf> {
    ["/usr/bin/redis-server", "/usr/local/bin/redis-server"]
        .into_iter()
        .map(PathBuf::from)
        .find(|path| path.exists())
        .context("redis-server is missing; install the package redis-server")
}

fn configuration_file(folder: &Path, users: &Path, durable: bool, port: u16) -> String {
    let (folder, users) = (folder.display(), users.display());
    let appended = if durable { "yes" } else { "no" };
    format!(
        "bind 127.0.0.1 -::1\nport {port}\ndir \"{folder}\"\naclfile \"{users}\"\ndaemonize no\nsave \"\"\n\
         appendonly {appended}\nappendfsync everysec\nappenddirname \"{WRITTEN}\"\nprotected-mode yes\nlogfile \"\"\n"
    )
}

/// What each program does with Redis and nothing more; the default user is off.
fn users_file(secrets: &Secrets) -> String {
    let connection = "+hello +auth +ping +select +client|setname +client|id +client|no-evict";
    let principals = PRINCIPAL_PREFIXES.map(|prefix| format!("~{prefix}*")).join(" ");
    let readable = PRINCIPAL_PREFIXES.map(|prefix| format!("%R~{prefix}*")).join(" ");
    let leases = LEASE_PREFIXES.map(|prefix| format!("~{prefix}*")).join(" ");
    let (directory, changed) = (Key::directory(), Key::directory_changed());
    let (usage, marks, strikes) = (Key::usage(), Key::usage_marks(), Key::strikes());
    // The script that publishes a snapshot gets the channel's name among its keys.
    let control = format!(
        "user control on >{password} resetkeys resetchannels {principals} ~{directory} ~{changed} ~{usage} ~{marks} ~{strikes} \
         &{changed} -@all {connection} +@read +@write +@transaction +@scripting +@stream -@dangerous \
         +publish +info +time",
        password = secrets.redis_control,
    );
    let gateway = format!(
        "user gateway on >{password} resetkeys resetchannels {readable} %R~{directory} %R~{marks} ~{usage} ~{strikes} \
         ~signature:* ~idempotent:* {leases} &{changed} -@all {connection} +client|tracking +client|caching +get +getrange +mget +hget \
         +hmget +hgetall +exists +set +strlen +xadd +xlen +hset +hdel +expire +pexpire +del +subscribe +unsubscribe +info +time \
         +pttl +eval +eval_ro +evalsha +script|load +zadd +zscore +zrangebyscore +zremrangebyscore",
        password = secrets.redis_gateway,
    );
    format!("user default off nopass resetkeys resetchannels -@all\n{control}\n{gateway}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn answer(redis: &Redis, user: User, command: &[&str]) -> redis::RedisResult<redis::Value> {
        let client = redis::Client::open(redis.url(user)).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let mut request = redis::cmd(command[0]);
        request.arg(&command[1..]);
        request.query_async(&mut connection).await
    }

    #[tokio::test]
    async fn each_program_reaches_only_what_it_needs() {
        let folder = tempfile::tempdir().unwrap();
        let secrets = Secrets::of_folder(folder.path()).unwrap();
        let spawner = Spawner::new(folder.path().to_owned()).unwrap();
        let port = crate::ports::Ports::of_folder(folder.path()).unwrap().claim("redis").unwrap();
        let mut redis = Redis::start(folder.path(), false, port, &secrets, &spawner).await.unwrap();
        assert!(answer(&redis, User::Control, &["HSET", "user:x", "v", "1"]).await.is_ok());
        assert!(answer(&redis, User::Gateway, &["HGETALL", "user:x"]).await.is_ok());
        assert!(answer(&redis, User::Gateway, &["HSET", "user:x", "v", "2"]).await.is_err());
        assert!(answer(&redis, User::Gateway, &["FLUSHALL"]).await.is_err());
        let read = ["EVAL_RO", protocol::principal::READ_SCRIPT, "2", "user:x", "principals:complete"];
        assert!(answer(&redis, User::Gateway, &read).await.is_ok());
        let write = "return redis.call('SET', KEYS[1], 'x', 'PX', 1000)";
        assert!(answer(&redis, User::Gateway, &["EVAL", write, "1", "idempotent:x"]).await.is_ok());
        assert!(answer(&redis, User::Gateway, &["EVAL", write, "1", "user:x"]).await.is_err());
        assert!(answer(&redis, User::Control, &["GET", "idempotent:x"]).await.is_err());
        assert!(answer(&redis, User::Gateway, &["CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", "user:"]).await.is_ok());
        let beat = protocol::lease::script::beat(None);
        let loaded = answer(&redis, User::Gateway, &["SCRIPT", "LOAD", &beat]).await.unwrap();
        let loaded: String = redis::from_redis_value(loaded).unwrap();
        let beats = ["EVALSHA", &loaded, "2", "lease:beats", "lease:since:1f", "gateway", "3000", "9000", "1000"];
        assert!(answer(&redis, User::Gateway, &beats).await.is_ok());
        assert!(answer(&redis, User::Gateway, &["SCRIPT", "FLUSH"]).await.is_err());
        assert!(answer(&redis, User::Control, &["CONFIG", "GET", "port"]).await.is_err());
        let nobody = redis::Client::open(format!("redis://127.0.0.1:{port}/")).unwrap();
        let refused = match nobody.get_multiplexed_async_connection().await {
            Ok(mut open) => redis::cmd("PING").query_async::<String>(&mut open).await.is_err(),
            Err(_) => true,
        };
        assert!(refused);
        redis.stop().await.unwrap();
    }

    #[tokio::test]
    async fn a_durable_one_comes_back_with_what_it_was_told_but_for_the_end_that_was_lost() {
        let folder = tempfile::tempdir().unwrap();
        let secrets = Secrets::of_folder(folder.path()).unwrap();
        let spawner = Spawner::new(folder.path().to_owned()).unwrap();
        let port = crate::ports::Ports::of_folder(folder.path()).unwrap().claim("redis").unwrap();
        let mut redis = Redis::start(folder.path(), true, port, &secrets, &spawner).await.unwrap();
        let told = async |redis: &Redis| {
            let users = ["user:first", "user:last"].map(async |key| {
                let answer = answer(redis, User::Control, &["EXISTS", key]).await.unwrap();
                redis::from_redis_value::<bool>(answer).unwrap()
            });
            futures::future::join_all(users).await
        };
        for key in ["user:first", "user:last"] {
            answer(&redis, User::Control, &["HSET", key, "v", "1"]).await.unwrap();
        }
        for (lost, left) in [(0, [true, true]), (1, [true, false])] {
            redis.process().kill().unwrap();
            redis.lose_the_last(lost).unwrap();
            redis.start_again(&spawner).await.unwrap();
            assert_eq!(told(&redis).await, left);
        }
        redis.replace_by_empty(&spawner).await.unwrap();
        assert_eq!(told(&redis).await, [false, false]);
        redis.stop().await.unwrap();
    }
}
