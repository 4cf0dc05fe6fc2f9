//! A log, its running service and a stand-in for the ingester that a test tells what to confirm.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use gateway::clock::Clock;
use gateway::metrics::Metrics;
use gateway::usage::{Counters, Flight, Service, Settings, UsageLog};
use protocol::ids::{CallId, ChuteId, ImageId, InstanceId, InvocationId, UserId, WriterId};
use protocol::signing::Hotkey;
use protocol::usage::{Admission, Beat, Entry, Facts, Kind, Outcome, Record};
use redis::Commands;
use tokio::sync::watch;

use crate::redis_server::RedisServer;

/// A log with its service running on a thread of its own.
pub(crate) struct Running {
    pub(crate) log: UsageLog,
    pub(crate) metrics: Arc<Metrics>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    pub(crate) fn start(settings: Settings, redis_url: &str) -> Self {
        let metrics = Arc::new(Metrics::new().unwrap());
        let log = UsageLog::open(settings, Clock::default(), Arc::clone(&metrics)).unwrap();
        let service = Service::new(&log, redis::Client::open(redis_url).unwrap(), Duration::from_secs(10));
        let (stop, stopped) = watch::channel(false);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
            runtime.block_on(service.run(stopped));
        });
        Self { log, metrics, stop, thread: Some(thread) }
    }

    /// Tells the service to stop.
    pub(crate) fn ask_to_stop(&self) {
        self.stop.send(true).unwrap();
    }

    /// Stops the service and waits for it.
    pub(crate) fn stop(mut self) {
        self.ask_to_stop();
        self.thread.take().unwrap().join().unwrap();
    }

    pub(crate) fn writer(&self) -> WriterId {
        self.log.writer()
    }

    /// One call that ends well. Segments here are so small that the reserve may have to be waited for.
    pub(crate) fn call(&self) -> u64 {
        let mut flight = None;
        eventually("there is room for a call", || {
            flight = self.log.admit(admission()).ok();
            flight.is_some()
        });
        finish(flight.unwrap())
    }

    pub(crate) fn calls(&self, count: u64) {
        for _ in 0..count {
            self.call();
        }
    }
}

/// Segments so small that a test fills many.
pub(crate) fn settings(folder: &Path) -> Settings {
    Settings { folder: folder.to_owned(), segment: 64 * 1024, max_calls: 32, keep: Duration::from_hours(24) }
}

pub(crate) fn admission() -> Admission {
    Admission {
        call: CallId::random(),
        invocation: InvocationId::random(),
        chute: ChuteId::random(),
        chute_owner: UserId::random(),
        function: "chat_stream".into(),
        image: ImageId::random(),
        image_owner: UserId::random(),
        user: UserId::random(),
        key: None,
        instance: InstanceId::random(),
        miner_uid: 7,
        hotkey: Hotkey::parse("5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY").unwrap(),
        started_at: Clock::default().now(),
        multiplier: 1.5,
        bucket: None,
        bucket_day: None,
        kind: Kind::Stream,
        estimate: 11,
        mean_connections: 0.25,
        steps: 0,
        reroll: false,
    }
}

pub(crate) fn finish(flight: Flight) -> u64 {
    let took = flight.took();
    finish_in(flight, took)
}

pub(crate) fn finish_in(flight: Flight, took: TimeDelta) -> u64 {
    let facts = Facts { it: 11, ot: 3, tokens: 3, ttft: Some(0.25), tt: 1.0 };
    flight.finish(Outcome::Finished, took, None, facts, true).unwrap()
}

pub(crate) fn chunks(chunks: u64) -> Counters {
    Counters { chunks, bytes: chunks * 4, first_chunk_micros: Some(1000), delivered: true, ..Counters::default() }
}

/// What the stream holds.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    pub(crate) finals: Vec<(WriterId, u64, Record)>,
    pub(crate) beats: Vec<(WriterId, Beat)>,
    /// All entries, in order.
    pub(crate) entries: Vec<Entry>,
}

impl Stream {
    pub(crate) fn read(server: &RedisServer) -> Self {
        let raw: Vec<(String, HashMap<String, String>)> = server.connection().xrange_all("usage").unwrap();
        let mut stream = Self::default();
        for (_, fields) in raw {
            let entry = Entry::read(|name| fields.get(name).map(String::as_bytes)).unwrap();
            stream.entries.push(entry.clone());
            match entry {
                Entry::Final { writer, sequence, record } => stream.finals.push((writer, sequence, *record)),
                Entry::Beat { writer, beat } => stream.beats.push((writer, beat)),
                Entry::Gap { .. } => {}
            }
        }
        stream
    }

    /// The sequences of a writer, in order of arrival.
    pub(crate) fn sequences(&self, writer: WriterId) -> Vec<u64> {
        self.finals.iter().filter(|(one, _, _)| *one == writer).map(|(_, sequence, _)| *sequence).collect()
    }

    /// Whether the writer has said that it writes no more.
    pub(crate) fn is_closed(&self, writer: WriterId) -> bool {
        self.beats.iter().any(|(one, beat)| *one == writer && beat.closed)
    }
}

/// Publishes a mark as the ingester does.
pub(crate) fn confirm(server: &RedisServer, writer: WriterId, mark: u64) {
    let _: () = server.connection().hset("usage:marks", writer.to_string(), mark).unwrap();
}

/// Waits for a condition.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "not within 20 s: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The segments of a writer that are on disk.
pub(crate) fn segments(root: &Path, writer: WriterId) -> usize {
    std::fs::read_dir(root.join(writer.to_string()).join("segments")).map_or(0, Iterator::count)
}
