//! The parts of the record path for one test, and attempts to send down it.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use control::clients::bus;
use control::clients::usage_stream::UsageStream;
use control::metrics::Metrics;
use control::task::Task as _;
use control::task::export_hour::ExportHours;
use control::task::ingest_usage::IngestUsage;
use protocol::ids::{CallId, ChuteId, ImageId, InstanceId, InvocationId, UserId, WriterId};
use protocol::keys::{Key, USAGE_GROUP};
use protocol::principal::Bucket;
use protocol::signing::Hotkey;
use protocol::usage::{Admission, Beat, Entry, Facts, Kind, Outcome, Record};
use uuid::Uuid;

use crate::object_store::ObjectStore;
use crate::postgres::Database;
use crate::redis_server::RedisServer;

/// Postgres, Redis and an object store of a test's own.
pub(crate) struct Ledger {
    pub(crate) database: Database,
    pub(crate) redis: RedisServer,
    pub(crate) store: ObjectStore,
    pub(crate) metrics: Arc<Metrics>,
}

impl Ledger {
    pub(crate) async fn new() -> Self {
        Self {
            database: Database::new().await,
            redis: RedisServer::start(),
            store: ObjectStore::start().await,
            metrics: Arc::new(Metrics::new().unwrap()),
        }
    }

    /// The consumer's end of the stream.
    pub(crate) fn stream(&self) -> UsageStream {
        let connect = || bus::connect(&self.redis.url()).unwrap();
        UsageStream::new(connect(), connect())
    }

    /// Runs the ingester until the stream is empty.
    pub(crate) async fn ingest(&self, now: DateTime<Utc>) {
        let duty = IngestUsage::new(self.database.pool.clone(), self.stream(), Arc::clone(&self.metrics));
        duty.run(now).await.unwrap();
    }

    /// Runs the exporter once.
    pub(crate) async fn export(&self, now: DateTime<Utc>) {
        let duty = ExportHours::new(self.database.pool.clone(), self.store.client(), Arc::clone(&self.metrics));
        duty.run(now).await.unwrap();
    }

    /// Puts entries into the stream as a shipper does.
    pub(crate) fn send(&self, entries: &[Entry]) {
        let mut pipe = redis::pipe();
        for entry in entries {
            pipe.cmd("XADD").arg(Key::usage().as_str()).arg("*").arg(entry.to_fields()).ignore();
        }
        pipe.exec(&mut self.redis.connection()).unwrap();
    }

    /// Entries in the stream, and those of them that are delivered and not acknowledged.
    pub(crate) fn waiting(&self) -> (u64, u64) {
        let mut redis = self.redis.connection();
        let length = redis::cmd("XLEN").arg(Key::usage().as_str()).query(&mut redis).unwrap();
        let pending: (u64, redis::Value, redis::Value, redis::Value) =
            redis::cmd("XPENDING").arg(Key::usage().as_str()).arg(USAGE_GROUP).query(&mut redis).unwrap();
        (length, pending.0)
    }

    /// The mark of a writer that shippers see.
    pub(crate) fn published_mark(&self, writer: WriterId) -> Option<u64> {
        let key = Key::usage_marks();
        redis::cmd("HGET").arg(key.as_str()).arg(writer.to_string()).query(&mut self.redis.connection()).unwrap()
    }

    pub(crate) async fn count(&self, query: &'static str) -> i64 {
        sqlx::query_scalar(query).fetch_one(&self.database.pool).await.unwrap()
    }

    /// Calls by user, day and bucket.
    pub(crate) async fn quota(&self) -> BTreeMap<(Uuid, String, String), i64> {
        let rows: Vec<(Uuid, String, String, i64)> =
            sqlx::query_as("select user_id, day::text, bucket, calls from quota_usage")
                .fetch_all(&self.database.pool)
                .await
                .unwrap();
        rows.into_iter().map(|(user, day, bucket, calls)| ((user, day, bucket), calls)).collect()
    }

    /// The bytes of a file, which must be there.
    pub(crate) fn file(&self, key: &str) -> String {
        String::from_utf8(self.store.object(key).unwrap_or_else(|| panic!("no object {key}"))).unwrap()
    }
}

/// A time of the tests' day.
pub(crate) fn at(time: &str) -> DateTime<Utc> {
    format!("2026-01-02T{time}Z").parse().unwrap()
}

/// A finished attempt of one second; number and identifiers belong together.
pub(crate) fn attempt(number: u128, completed_at: DateTime<Utc>) -> Record {
    let id = |kind: u128| Uuid::from_u128(kind << 64 | number);
    let same = |kind: u128| Uuid::from_u128(kind);
    Record {
        admission: Admission {
            call: CallId(id(1)),
            invocation: InvocationId(id(2)),
            chute: ChuteId(same(3)),
            chute_owner: UserId(same(4)),
            function: "chat_stream".into(),
            image: ImageId(same(5)),
            image_owner: UserId(same(6)),
            user: UserId(same(7)),
            key: None,
            instance: InstanceId(same(8)),
            miner_uid: 7,
            hotkey: Hotkey::parse("5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY").unwrap(),
            started_at: completed_at - TimeDelta::seconds(1),
            multiplier: 1.5,
            bucket: Some(Bucket::Default),
            bucket_day: None,
            kind: Kind::Stream,
            estimate: 11,
            mean_connections: 0.25,
            steps: 0,
            reroll: false,
        },
        outcome: Outcome::Finished,
        completed_at,
        error: None,
        delivered: true,
        facts: Facts { it: 11, ot: 5, tokens: 5, ttft: Some(0.25), tt: 1.0 },
    }
}

pub(crate) fn entry(writer: WriterId, sequence: u64, record: Record) -> Entry {
    Entry::Final { writer, sequence, record: Box::new(record) }
}

pub(crate) fn beat(writer: WriterId, clock: DateTime<Utc>, sequence: u64, closed: bool) -> Entry {
    Entry::Beat { writer, beat: Beat { clock, sequence, closed } }
}
