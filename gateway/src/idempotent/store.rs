//! The calls that must not be made twice, in Redis, where all gateways see them.

use std::convert::Infallible;
use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use protocol::ids::UserId;
use protocol::keys::Key;
use protocol::sealing::{AnswerDigest, AnswerKey};
use redis::ToRedisArgs;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use super::entry::{Answer, Entry, State};
use super::link::{Link, PATIENCE};
use super::room::{Full, Owner, Room, Share};
use super::settling::Waiting;
use crate::call::HEAVY;
use crate::metrics::Metrics;
use crate::refusal::Refusal;

/// Bytes from which a value has a connection apart from claims, which would wait for it, and counts while it is given
/// again.
const LARGE: usize = 64 << 10;
/// So many large values are sealed, moved or opened at once: each takes its length several times meanwhile.
const LARGE_AT_ONCE: usize = 4;
/// Answers that are given again take this part of what answers may take beside them.
const REPLAYS: usize = 2;
/// Room that a call takes besides its answer.
const SMALL: usize = 1024;
/// Claims are renewed so many times in the time they are good for.
const RENEWALS: u32 = 4;

/// Writes a value where there is none; else gives the length of what is there, for how long it stays, and itself unless
/// it is large. An empty value is not written.
const CLAIM: &str = "local length = redis.call('STRLEN', KEYS[1])
if length > 0 then
  local held = length < tonumber(ARGV[3]) and redis.call('GET', KEYS[1]) or ''
  return {length, redis.call('PTTL', KEYS[1]), held}
end
if ARGV[1] ~= '' then redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) end
return false";

/// Writes a value over a claim: if one of its two still stands, or nothing does any more; an empty value deletes. Once
/// more is as good as once, so that it may be tried again.
const REPLACE: &str = "local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[1] and held ~= ARGV[2] and held ~= ARGV[3] then return 0 end
if ARGV[3] == '' then redis.call('DEL', KEYS[1]) else redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[4]) end
return 1";

const AWAY: Refusal = Refusal::NotReady("calls with an Idempotency-Key cannot be checked at the moment");

/// How much is kept, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How long an answer is kept.
    pub keep: Duration,
    /// Largest answer that is kept.
    pub largest: usize,
    /// Bytes of all answers of this gateway that are kept.
    pub total: usize,
    /// How long a call goes on without its client.
    pub run_on: Duration,
    /// How long a call is taken to run after its gateway was last heard of.
    pub claim: Duration,
}

/// Calls that must not be made twice.
pub struct Answers {
    claims: Link,
    /// For large values.
    bodies: Link,
    /// Of those who hold large values more than once.
    turns: Semaphore,
    key: AnswerKey,
    room: Arc<Room>,
    /// For large answers on their way to clients once more.
    replays: Arc<Room>,
    metrics: Arc<Metrics>,
    pub(super) waiting: Waiting,
    /// How much is kept, and for how long.
    pub settings: Settings,
}

/// A request that must not be served twice: its name for the call, and all it says.
pub struct Asked {
    user: UserId,
    pub(super) name: AnswerDigest,
    pub(super) fingerprint: AnswerDigest,
}

impl Asked {
    pub(super) fn of(secret: &AnswerKey, user: UserId, key: &str, request: &[&[u8]]) -> Self {
        let name = secret.digest(&[b"name", user.0.as_bytes(), key.as_bytes()]);
        let fingerprint = secret.digest(&[&[b"request".as_slice()], request].concat());
        Self { user, name, fingerprint }
    }
}

/// What is found when a call is to be made.
pub enum Found {
    /// Nothing: it is ours to make.
    Nothing(Claim),
    /// It was made, with this answer; a large one has its share until it was given again.
    Answered(Answer, Option<Share>),
}

/// The right to make a call, which no other gateway has as long as it is renewed.
pub struct Claim {
    pub(super) asked: Asked,
    /// What stands in Redis while the client has nothing of the answer.
    pub(super) running: Vec<u8>,
    /// What stands there from then on.
    begun: OnceLock<Vec<u8>>,
    pub(super) share: Share,
}

impl Answers {
    /// Keeps them in this Redis, sealed under this key.
    #[must_use]
    pub fn new(redis: redis::Client, key: AnswerKey, metrics: Arc<Metrics>, settings: Settings) -> Self {
        let (room, replays) = (Room::new(settings.total), Room::new(settings.total / REPLAYS));
        let (claims, bodies) = (Link::new(redis.clone()), Link::new(redis));
        let (turns, waiting) = (Semaphore::new(LARGE_AT_ONCE), Waiting::default());
        Self { claims, bodies, turns, key, room, replays, metrics, waiting, settings }
    }

    /// What a user asks under his key with a request, given as texts.
    #[must_use]
    pub fn asked(&self, user: UserId, key: &str, request: &[&[u8]]) -> Asked {
        Asked::of(&self.key, user, key, request)
    }

    /// Claims a call, unless it was made or is being made.
    ///
    /// # Errors
    /// When it must not be made again and there is no answer to give, or that cannot be known at the moment.
    pub async fn claim(&self, asked: Asked) -> Result<Found, Refusal> {
        let counted = |result: &'static str| self.metrics.calls.idempotent.with_label_values(&[result]).inc();
        let share = self.room.take(asked.user, SMALL, Instant::now());
        // Without room for a call there may be an answer all the same.
        let sealed = if share.is_ok() { self.seal(&asked, State::Running).await? } else { Vec::new() };
        let mut eval = redis::cmd("EVAL");
        eval.arg(CLAIM).arg(1).arg(Key::idempotent(&asked.name).as_str());
        eval.arg(&sealed).arg(millis(self.settings.claim)).arg(LARGE);
        // An answer that does not arrive leaves open whether the call is ours: the claim then runs out by itself.
        let held: Option<(usize, i64, Vec<u8>)> =
            self.ask(&self.claims, &eval).await.inspect_err(|_| counted("refused"))?;
        // It is our own if the connection broke after it was written.
        let held = held.filter(|(_, _, held)| held.is_empty() || *held != sealed);
        let Some((length, stays, held)) = held else {
            let share = share.map_err(Refusal::AnswersFull).inspect_err(|_| counted("refused"))?;
            counted("made");
            return Ok(Found::Nothing(Claim { asked, running: sealed, begun: OnceLock::new(), share }));
        };
        let told = self.told(&asked, length, stays, held).await;
        counted(if told.is_ok() { "replayed" } else { "refused" });
        told.map(|(answer, share)| Found::Answered(answer, share))
    }

    /// The answer to a call that was made, and its share if it is large.
    async fn told(
        &self,
        asked: &Asked,
        length: usize,
        stays: i64,
        held: Vec<u8>,
    ) -> Result<(Answer, Option<Share>), Refusal> {
        let (entry, share) = if length < LARGE {
            (self.open(held, asked.name).await?, None)
        } else {
            let share = self.replays.wait(asked.user, length, PATIENCE).await.map_err(Refusal::AnswersFull)?;
            (self.fetch(asked).await?, Some(share))
        };
        let stays = Duration::from_millis(stays.try_into().unwrap_or(0));
        let silent = self.settings.keep.saturating_sub(stays);
        let answer = entry.tell(&asked.fingerprint, silent, self.settings.claim).map_err(Refusal::Again)?;
        Ok((answer, share))
    }

    /// Makes a claimed call and keeps the claim meanwhile.
    pub async fn hold<T>(&self, claim: &Claim, call: impl Future<Output = T>) -> T {
        tokio::select! {
            biased;
            done = call => done,
            never = self.renew(claim) => match never {},
        }
    }

    /// Writes down that the answer to a claimed call begins: from now on the call is not made anew, even if this process
    /// dies. A write that fails is made up for when the claim is renewed.
    pub async fn begins(&self, claim: &Claim) {
        // A defect of ours makes nobody wait: without it the call is as safe as before its answer began.
        let Ok(begun) = self.seal(&claim.asked, State::Begun).await else { return };
        let begun = claim.begun.get_or_init(|| begun);
        if let Ok(0) = self.replace(claim, begun, self.settings.keep).await {
            self.forgotten();
        }
    }

    /// Room for the answer to a claimed call, which grows with it.
    pub fn room(&self, claim: &Claim) -> Option<Share> {
        self.room.take(claim.asked.user, 0, Instant::now()).ok()
    }

    /// Seals an entry; a large one off the threads that relay streams.
    pub(super) async fn seal(&self, asked: &Asked, state: State) -> Result<Vec<u8>, Refusal> {
        let heavy = matches!(&state, State::Answered(answer) if answer.body.len() >= HEAVY);
        let (key, name, entry) = (self.key.clone(), asked.name, Entry { fingerprint: asked.fingerprint, state });
        let seal = move || key.seal(&entry.to_text(), &name);
        if !heavy {
            return Ok(seal());
        }
        let _turn = self.turn().await;
        spawn_blocking(seal).await.map_err(|_| Refusal::Internal)
    }

    /// Opens an entry; a large one off the threads that relay streams.
    async fn open(&self, sealed: Vec<u8>, name: AnswerDigest) -> Result<Entry, Refusal> {
        let (key, heavy) = (self.key.clone(), sealed.len() >= HEAVY);
        let open = move || key.open(&sealed, &name).ok().and_then(Entry::from_text);
        let opened = if heavy { spawn_blocking(open).await.map_err(|_| Refusal::Internal)? } else { open() };
        opened.ok_or_else(|| {
            tracing::error!("redis holds an answer that cannot be opened");
            Refusal::NotReady("the answer of before cannot be read")
        })
    }

    /// Gets an entry that is large.
    async fn fetch(&self, asked: &Asked) -> Result<Entry, Refusal> {
        let busy = |_| Refusal::AnswersFull(Full { whose: Owner::All, free_in: None });
        let _turn = timeout(PATIENCE, self.turn()).await.map_err(busy)?;
        let mut get = redis::cmd("GET");
        let sealed: Option<Vec<u8>> = self.ask(&self.bodies, get.arg(Key::idempotent(&asked.name).as_str())).await?;
        // Its time is over since it was found: whoever asks again makes the call.
        self.open(sealed.ok_or(AWAY)?, asked.name).await
    }

    async fn turn(&self) -> SemaphorePermit<'_> {
        self.turns.acquire().await.expect("nobody closes it")
    }

    async fn renew(&self, claim: &Claim) -> Infallible {
        loop {
            sleep(self.settings.claim / RENEWALS).await;
            // One that fails is made up for by the next; if none does, the claim runs out.
            let _ = match claim.begun.get() {
                Some(begun) => self.replace(claim, begun, self.settings.keep).await,
                None => self.replace(claim, &claim.running, self.settings.claim).await,
            };
        }
    }

    pub(super) async fn replace(&self, claim: &Claim, text: &[u8], keep: Duration) -> Result<i64, Refusal> {
        let mut eval = redis::cmd("EVAL");
        eval.arg(REPLACE).arg(1).arg(Key::idempotent(&claim.asked.name).as_str());
        eval.arg(&claim.running).arg(claim.begun.get().map_or(&claim.running, |begun| begun));
        if text.len() < LARGE {
            return self.ask(&self.claims, eval.arg(text).arg(millis(keep))).await;
        }
        let _turn = self.turn().await;
        self.ask(&self.bodies, eval.arg(text).arg(millis(keep))).await
    }

    /// Redis was away for longer than a claim is good for: what it was told, or told others, is not what is.
    pub(super) fn forgotten(&self) {
        self.metrics.calls.idempotent.with_label_values(&["forgotten"]).inc();
        tracing::warn!("redis was away for too long: a call with an idempotency key may be made twice");
    }

    async fn ask<T: redis::FromRedisValue>(&self, link: &Link, command: &redis::Cmd) -> Result<T, Refusal> {
        link.ask(command).await.map_err(|error| {
            if !error.is_io_error() {
                tracing::warn!(%error, "cannot ask for calls with an idempotency key");
            }
            AWAY
        })
    }
}

/// A time to live; at least one millisecond, which is the least Redis takes.
fn millis(time: Duration) -> impl ToRedisArgs {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
}
