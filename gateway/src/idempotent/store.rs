//! The calls that must not be made twice, in Redis, where all gateways see them.

use std::convert::Infallible;
use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use protocol::ids::UserId;
use protocol::keys::Key;
use protocol::sealing::{AnswerDigest, AnswerKey};
use redis::ToRedisArgs;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use super::entry::{Answer, Entry, State};
use super::room::{Room, Share};
use super::settling::Waiting;
use crate::call::HEAVY;
use crate::metrics::Metrics;
use crate::principals::Principals;
use crate::refusal::Refusal;

/// How long Redis may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// Room that a call takes besides its answer.
const SMALL: usize = 1024;
/// Claims are renewed so many times in the time they are good for.
const RENEWALS: u32 = 4;

/// Writes a value where there is none; else gives what is there, and for how long it stays. An empty value is not written.
const CLAIM: &str = "local held
if ARGV[1] == '' then held = redis.call('GET', KEYS[1])
else held = redis.call('SET', KEYS[1], ARGV[1], 'NX', 'GET', 'PX', ARGV[2]) end
return held and {held, redis.call('PTTL', KEYS[1])}";

/// Writes a value over a claim: if one of its two still stands, or nothing does any more; an empty value deletes.
const REPLACE: &str = "local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[1] and held ~= ARGV[2] then return 0 end
if ARGV[3] == '' then redis.call('DEL', KEYS[1]) else redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[4]) end
return 1";

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
    principals: Arc<Principals>,
    key: AnswerKey,
    room: Arc<Room>,
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
    /// It was made, with this answer.
    Answered(Answer),
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
    /// Keeps them sealed under this key.
    #[must_use]
    pub fn new(principals: Arc<Principals>, key: AnswerKey, metrics: Arc<Metrics>, settings: Settings) -> Self {
        let (room, waiting) = (Room::new(settings.total), Waiting::default());
        Self { principals, key, room, metrics, waiting, settings }
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
        eval.arg(&sealed).arg(millis(self.settings.claim));
        // An answer that does not arrive leaves open whether the call is ours: the claim then runs out by itself.
        let held: Option<(Vec<u8>, i64)> = self.ask(&eval).await.inspect_err(|_| counted("refused"))?;
        let Some((held, stays)) = held else {
            let share = share.map_err(Refusal::AnswersFull).inspect_err(|_| counted("refused"))?;
            counted("made");
            return Ok(Found::Nothing(Claim { asked, running: sealed, begun: OnceLock::new(), share }));
        };
        let stays = Duration::from_millis(stays.try_into().unwrap_or(0));
        let entry = self.open(held, asked.name).await?.ok_or_else(|| {
            tracing::error!("redis holds an answer that cannot be opened");
            Refusal::NotReady("the answer of before cannot be read")
        })?;
        let told = entry.tell(&asked.fingerprint, self.settings.keep.saturating_sub(stays), self.settings.claim);
        counted(if told.is_ok() { "replayed" } else { "refused" });
        Ok(Found::Answered(told.map_err(Refusal::Again)?))
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
        if heavy { spawn_blocking(seal).await.map_err(|_| Refusal::Internal) } else { Ok(seal()) }
    }

    /// Opens an entry, none if it is none of ours; a large one off the threads that relay streams.
    async fn open(&self, sealed: Vec<u8>, name: AnswerDigest) -> Result<Option<Entry>, Refusal> {
        let (key, heavy) = (self.key.clone(), sealed.len() >= HEAVY);
        let open = move || key.open(&sealed, &name).ok().and_then(|text| Entry::from_text(&text));
        if heavy { spawn_blocking(open).await.map_err(|_| Refusal::Internal) } else { Ok(open()) }
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
        self.ask(eval.arg(text).arg(millis(keep))).await
    }

    /// Redis was away for longer than a claim is good for: what it was told, or told others, is not what is.
    pub(super) fn forgotten(&self) {
        self.metrics.calls.idempotent.with_label_values(&["forgotten"]).inc();
        tracing::warn!("redis was away for too long: a call with an idempotency key may be made twice");
    }

    async fn ask<T: redis::FromRedisValue>(&self, command: &redis::Cmd) -> Result<T, Refusal> {
        let away = Refusal::NotReady("calls with an Idempotency-Key cannot be checked at the moment");
        let mut connection = self.principals.connection().map_err(|_| away.clone())?;
        match timeout(PATIENCE, command.query_async(&mut connection)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                tracing::warn!(%error, "cannot ask for calls with an idempotency key");
                Err(away)
            }
            Err(_) => Err(away),
        }
    }
}

/// A time to live; at least one millisecond, which is the least Redis takes.
fn millis(time: Duration) -> impl ToRedisArgs {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
}
