//! Redis emptied, frozen, restored; the disk full.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;

use gateway::usage::{LogUnwritable, Settings};
use protocol::ids::WriterId;

use super::platform::*;
use crate::redis_server::RedisServer;

fn holds(server: &RedisServer, writer: WriterId, sequences: std::ops::RangeInclusive<u64>) -> bool {
    let found: BTreeSet<u64> = Stream::read(server).sequences(writer).into_iter().collect();
    sequences.into_iter().all(|sequence| found.contains(&sequence))
}

#[test]
fn a_redis_that_comes_back_empty_gets_everything_unconfirmed_again() {
    let (root, mut server) = (tempfile::tempdir().unwrap(), RedisServer::start());
    let running = Running::start(settings(root.path()), &server.url());
    let writer = running.writer();
    running.calls(300);
    eventually("they are shipped", || holds(&server, writer, 1..=300));
    confirm(&server, writer, 100);
    eventually("the mark is seen", || running.metrics.record.unconfirmed.get() == 200);
    server.kill();
    running.calls(50);
    server.restart();
    eventually("they are shipped again", || holds(&server, writer, 101..=350));
    assert_eq!(Stream::read(&server).sequences(writer), (101..=350).collect::<Vec<_>>());
    running.stop();
}

#[test]
fn a_redis_that_is_emptied_while_connected_gets_everything_unconfirmed_again() {
    let (root, server) = (tempfile::tempdir().unwrap(), RedisServer::start());
    let running = Running::start(settings(root.path()), &server.url());
    let writer = running.writer();
    running.calls(300);
    eventually("they are shipped", || holds(&server, writer, 1..=300));
    confirm(&server, writer, 100);
    eventually("the mark is seen", || running.metrics.record.unconfirmed.get() == 200);
    redis::cmd("FLUSHALL").exec(&mut server.connection()).unwrap();
    eventually("they are shipped again", || holds(&server, writer, 101..=300));
    running.stop();
}

#[test]
fn a_database_restored_to_an_earlier_time_is_filled_again() {
    let (root, server) = (tempfile::tempdir().unwrap(), RedisServer::start());
    let running = Running::start(settings(root.path()), &server.url());
    let writer = running.writer();
    running.calls(300);
    eventually("they are shipped", || holds(&server, writer, 1..=300));
    confirm(&server, writer, 300);
    eventually("all is confirmed", || running.metrics.record.unconfirmed.get() == 0);
    redis::cmd("DEL").arg("usage").exec(&mut server.connection()).unwrap();
    confirm(&server, writer, 40);
    eventually("the rest is shipped again", || holds(&server, writer, 41..=300));
    assert_eq!(Stream::read(&server).sequences(writer).first(), Some(&41));
    running.stop();
}

#[test]
fn a_frozen_redis_delays_records_and_no_call() {
    let (root, server) = (tempfile::tempdir().unwrap(), RedisServer::start());
    let running = Running::start(Settings { segment: 4 << 20, ..settings(root.path()) }, &server.url());
    let writer = running.writer();
    running.calls(10);
    eventually("they are shipped", || holds(&server, writer, 1..=10));
    server.freeze();
    let start = std::time::Instant::now();
    running.calls(500);
    assert!(start.elapsed().as_secs() < 2, "calls waited {:?} for Redis", start.elapsed());
    server.thaw();
    eventually("the rest is shipped", || holds(&server, writer, 1..=510));
    running.stop();
}

/// A file system of its own with very little room; needs root.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    fn mount(at: &'a Path, size: &str) -> Option<Self> {
        let option = format!("size={size}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &option, "tmpfs"]).arg(at).status();
        mounted.is_ok_and(|status| status.success()).then_some(Self(at))
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        // Lazily: files of the log may still be open.
        let _ = Command::new("umount").arg("--lazy").arg(self.0).status();
    }
}

#[test]
#[expect(clippy::print_stderr, reason = "a skipped test must say so")]
fn a_full_disk_refuses_new_calls_and_records_those_in_flight() {
    let (root, server) = (tempfile::tempdir().unwrap(), RedisServer::start());
    let Some(_disk) = SmallDisk::mount(root.path(), "1m") else {
        eprintln!("SKIPPED: a small disk cannot be mounted here (needs root)");
        return;
    };
    let running = Running::start(Settings { max_calls: 200, ..settings(root.path()) }, &server.url());
    let writer = running.writer();
    let ballast = root.path().join("ballast");
    assert_eq!(fs::write(&ballast, vec![1; 2 << 20]).unwrap_err().kind(), ErrorKind::StorageFull);
    let mut flights = Vec::new();
    let mut ended = 0;
    let refused = loop {
        match running.log.admit(admission()) {
            Ok(flight) if flights.len() < 40 => flights.push(flight),
            Ok(flight) => ended = finish(flight),
            Err(refused) => break refused,
        }
    };
    assert!(matches!(refused, LogUnwritable::Full), "{refused}");
    eventually("the metric says so", || running.metrics.record.writable.get() == 0);
    let last = ended + flights.len() as u64;
    for flight in flights {
        finish(flight);
    }
    assert_eq!(running.metrics.record.dropped.get(), 0);
    eventually("all records are shipped", || holds(&server, writer, 1..=last));
    fs::remove_file(ballast).unwrap();
    assert_eq!(running.call(), last + 1);
    running.stop();
}
