//! Kills at random points over all parts of the record's way, one after another, while streams are running.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use sqlx::PgPool;
use stack::miner::{Behaviour, Engine};
use stack::platform::Platform;
use stack::proof::{self, Size};
use stack::screen;
use tokio::time::{Instant, sleep};

use super::{show, wait_until_known};
use crate::books;
use crate::load::{End, Load, Seen};
use crate::scene::Scene;

const CLIENTS: u64 = 8;
/// Slow enough that what one relay write joins is few tokens.
const TOKENS_PER_SECOND: f64 = 50.0;

/// Most time between two kills; the parts that died are back by then.
const PAUSE: Duration = Duration::from_millis(400);
/// How many of a gateway's deaths come in the middle of its upgrade.
const UPGRADING: f64 = 0.3;
/// About how long the next process takes to take over.
const TAKE_OVER: Duration = Duration::from_millis(1500);
/// About how many bytes Redis is told in a second, which is how often it makes them durable.
const LAST_SECOND: u64 = 64 << 10;
/// Streams that a thousand kills have to cut: more than one for each gateway that died.
const CUT: usize = 500;
/// Answers in one piece that they have to come upon.
const CUT_WHOLE: i64 = 100;
/// Kills between two lines about how far it is.
const TOLD_EVERY: usize = 50;

/// What can die, in the order in which parts need each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    /// Postgres, which recovers from its log.
    Postgres,
    /// Redis, and with it some or all of what it held.
    Redis(Memory),
    /// The ingester, and with it all other duties.
    Worker,
    /// A gateway, and in it the shipper.
    Gateway(usize),
}

/// With what Redis comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Memory {
    /// With all but the end of what it was told, which was not on its disk yet.
    Kept,
    /// With nothing.
    Emptied,
}

impl Part {
    /// With what Redis comes back is drawn when it is to die.
    const ALL: [Self; 5] =
        [Self::Postgres, Self::Redis(Memory::Kept), Self::Worker, Self::Gateway(0), Self::Gateway(1)];

    /// Some of them, in the order in which parts need each other.
    fn draw(number: usize, choice: &mut StdRng) -> Vec<Self> {
        let mut parts: Vec<Self> = Self::ALL.choose_multiple(choice, number).copied().collect();
        for part in &mut parts {
            if let Self::Redis(memory) = part {
                *memory = if choice.random() { Memory::Kept } else { Memory::Emptied };
            }
        }
        parts.sort();
        parts
    }

    async fn kill(self, platform: &mut Platform, choice: &mut StdRng) -> anyhow::Result<()> {
        match self {
            Self::Postgres => platform.postgres.crash().await,
            Self::Redis(memory) => {
                platform.redis.process().kill()?;
                match memory {
                    Memory::Kept => platform.redis.lose_the_last(choice.random_range(0..=LAST_SECOND)),
                    Memory::Emptied => platform.redis.forget(),
                }
            }
            Self::Worker => platform.control.processes()[0].kill(),
            Self::Gateway(number) => platform.gateways[number].kill(),
        }
    }

    /// Two processes of a gateway: both are killed after so much time, or the one that goes once the other has taken
    /// over.
    async fn kill_upgrading(
        number: usize,
        both_after: Option<Duration>,
        platform: &mut Platform,
    ) -> anyhow::Result<()> {
        let (gateway, spawner) = (&mut platform.gateways[number], &platform.spawner);
        let Some(after) = both_after else { return gateway.upgrade(spawner).await?.kill() };
        let mut next = gateway.start_next(spawner).await?;
        sleep(after).await;
        next.kill()?;
        gateway.kill()?;
        gateway.start_again(spawner).await
    }

    async fn start_again(self, platform: &mut Platform) -> anyhow::Result<()> {
        match self {
            Self::Postgres => platform.postgres.start_again(&platform.spawner).await,
            Self::Redis(_) => platform.redis.start_again(&platform.spawner).await,
            Self::Worker => platform.control.start_worker_again(&platform.spawner).await,
            Self::Gateway(number) => platform.gateways[number].start_again(&platform.spawner).await,
        }
    }
}

/// Kills one part or two at once, so many times in all, at moments and in an order that follow from the seed.
async fn kill_at_random(scene: &mut Scene, kills: usize, choice: &mut StdRng) {
    let (mut done, mut told, began) = (BTreeMap::<String, usize>::new(), 0, Instant::now());
    let mut count = 0;
    while count < kills {
        sleep(PAUSE.mul_f64(choice.random())).await;
        let together = if choice.random_bool(0.2) { 2 } else { 1 };
        let parts = Part::draw(together.min(kills - count), choice);
        if let [Part::Gateway(number)] = parts[..]
            && choice.random_bool(UPGRADING)
        {
            let both_after = choice.random_bool(0.5).then(|| TAKE_OVER.mul_f64(choice.random()));
            Part::kill_upgrading(number, both_after, &mut scene.platform).await.unwrap();
            let which = if both_after.is_some() { "both of" } else { "old" };
            *done.entry(format!("{which} Gateway({number})")).or_default() += 1;
        } else {
            for part in &parts {
                part.kill(&mut scene.platform, choice).await.unwrap();
                *done.entry(format!("{part:?}")).or_default() += 1;
            }
            for part in &parts {
                part.start_again(&mut scene.platform).await.unwrap();
            }
        }
        count += parts.len();
        if count / TOLD_EVERY > told || count == kills {
            told = count / TOLD_EVERY;
            let rows = super::count(&scene.db).await;
            screen::say(&format!("{count} kills in {:.0?}: {done:?}; {rows} rows", began.elapsed()));
        }
    }
}

/// How many attempts of each function ended how.
async fn outcomes(db: &PgPool) -> Vec<(String, String, i64)> {
    let text = "select function_name, outcome, count(*) from invocations group by 1, 2 order by 1, 2";
    sqlx::query_as(text).fetch_all(db).await.unwrap()
}

/// Takes about a second for each kill: a part that died has to start again.
#[tokio::test]
async fn whatever_is_killed_at_whatever_moment_each_call_is_counted_once() {
    let seed = proof::seed();
    screen::say(&format!("kills at random: CHUTES_PROOF_SEED={seed} gives the same again"));
    let mut scene = Scene::with(|options| {
        options.durable_redis = true;
        // Small logs start fast, and what is confirmed is deleted at once: had it not been stored, it would be lost.
        let settings =
            [("GATEWAY_LOG_SEGMENT", "1048576"), ("GATEWAY_MAX_CALLS", "256"), ("GATEWAY_LOG_KEEP_SECONDS", "1")];
        options.gateway_settings.extend(settings.map(|(name, value)| (name.into(), value.into())));
    })
    .await;
    let user = scene.unlimited_user("load", &[]).await;
    for gateway in 0..scene.gateways() {
        wait_until_known(&scene, gateway, &user).await;
    }
    let slow = Behaviour { tokens_per_second: TOKENS_PER_SECOND, ..Behaviour::default() };
    scene.behave(Engine::Vllm, &slow).await;
    let load = Load::start_any(&scene, &user, CLIENTS, seed);
    kill_at_random(&mut scene, Size::asked().pick(12, 1000), &mut StdRng::seed_from_u64(seed)).await;
    let seen = load.stop().await;
    show("parts killed at random", &seen);
    let whole = seen.iter().filter(|call| call.end == End::Whole).count();
    assert!(whole > 0, "nobody was served");
    let is_cut_stream = |call: &&Seen| call.end == End::Cut && call.tokens > 0 && call.in_one_piece.is_none();
    let cut = seen.iter().filter(is_cut_stream).count();
    assert!(cut >= Size::asked().pick(0, CUT), "only {cut} streams were cut");
    books::balance(&mut scene, &user, &seen).await;
    let outcomes = outcomes(&scene.db).await;
    screen::say(&format!("recorded: {outcomes:?}"));
    let lost = |function: &str| outcomes.iter().find(|one| (one.0.as_str(), one.1.as_str()) == (function, "lost"));
    let in_one_piece = lost("chat").map_or(0, |found| found.2);
    assert!(in_one_piece >= Size::asked().pick(0, CUT_WHOLE), "gateways died with {in_one_piece} answers in one piece");
}
