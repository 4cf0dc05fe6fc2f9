//! The desk's words with Redis: a beat, a batch of questions, the loads.

use std::time::Duration;

use anyhow::{Context, ensure};
use protocol::ids::WriterId;
use protocol::keys::Key;
use protocol::lease::{Answer, Ask, script};
use protocol::load::Load;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Script};

use super::Subject;
use crate::redis_run::run_id;

/// How long connecting or one answer may take.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);
/// How long a load is believed.
const LOAD_LIFE: Duration = Duration::from_secs(2);
/// Longest load that is read, in bytes.
const LONGEST_LOAD: usize = 4 << 20;

/// What a beat was answered.
pub(super) struct Heard {
    /// Whether Redis knew us before.
    pub(super) known: bool,
    /// For how long it has been settling or settled.
    pub(super) age: Duration,
    /// The gateways alive.
    pub(super) alive: Vec<WriterId>,
}

/// A connection of the desk's own.
pub(super) struct Store {
    connection: MultiplexedConnection,
    gateway: WriterId,
    since: Key,
    beat: Script,
    ask: Script,
}

impl Store {
    pub(super) async fn connect(client: &redis::Client, gateway: WriterId) -> anyhow::Result<Self> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(ANSWER_WITHIN))
            .set_response_timeout(Some(ANSWER_WITHIN));
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        let connection =
            tokio::time::timeout(2 * ANSWER_WITHIN, connecting).await.context("connecting took too long")?;
        let (beat, ask) = (Script::new(&script::beat(None)), Script::new(&script::ask(None)));
        let mut connection = connection.context("connecting to redis")?;
        let run = run_id(&mut connection).await.context("asking for the run of redis")?;
        let since = Key::lease_since(run.as_deref().unwrap_or("unknown"));
        Ok(Self { connection, gateway, since, beat, ask })
    }

    /// Says that we are there.
    pub(super) async fn beat(&mut self) -> anyhow::Result<Heard> {
        let mut call = self.beat.key(Key::lease_beats().as_str());
        call.key(self.since.as_str()).arg(self.gateway.to_string()).arg(&script::beat_arguments());
        let heard = call.invoke_async(&mut self.connection).await.context("beating")?;
        let (known, age, alive): (bool, u64, Vec<String>) = heard;
        let alive =
            alive.iter().map(|gateway| gateway.parse()).collect::<Result<_, _>>().context("reading the beats")?;
        Ok(Heard { known, age: Duration::from_millis(age), alive })
    }

    /// Asks a batch of questions; whether Redis has settled, and the answers.
    pub(super) async fn ask(
        &mut self,
        sequence: u64,
        gateways: u32,
        subjects: &[Subject],
        asks: &[Ask],
    ) -> anyhow::Result<(bool, Vec<Answer>)> {
        let mut call = self.ask.key(Key::lease_beats().as_str());
        call.key(self.since.as_str());
        for subject in subjects {
            call.key(subject.key().as_str());
        }
        call.arg(self.gateway.to_string()).arg(script::ask_arguments(sequence, gateways, asks));
        let returned: Vec<i64> = call.invoke_async(&mut self.connection).await.context("asking for slots")?;
        let (settled, answers) = script::answers(&returned).context("redis answered something else")?;
        ensure!(answers.len() == asks.len(), "redis answered {} of {} questions", answers.len(), asks.len());
        Ok((settled, answers))
    }

    /// Tells our load and hears those of others.
    pub(super) async fn exchange(&mut self, own: &Load, others: &[WriterId]) -> anyhow::Result<Vec<Load>> {
        let own = serde_json::to_string(own).context("writing our load")?;
        let life = u64::try_from(LOAD_LIFE.as_millis()).context("a life in milliseconds")?;
        let mut pipeline = redis::pipe();
        pipeline.cmd("SET").arg(Key::load(self.gateway).as_str()).arg(own).arg("PX").arg(life).ignore();
        for other in others {
            pipeline.cmd("GET").arg(Key::load(*other).as_str());
        }
        let loads: Vec<Option<String>> =
            pipeline.query_async(&mut self.connection).await.context("exchanging loads")?;
        // One that cannot be read, of a gateway of another version, is left out.
        let loads = loads.into_iter().flatten().filter(|load| load.len() <= LONGEST_LOAD);
        Ok(loads.filter_map(|load| serde_json::from_str(&load).ok()).collect())
    }
}
