//! What arrives in Redis, in which order, and what is deleted afterwards.

use std::time::Duration;

use chrono::TimeDelta;
use gateway::usage::{LogUnwritable, Settings};
use protocol::usage::{Entry, Outcome};

use super::platform::*;
use crate::redis_server::RedisServer;

#[test]
fn records_arrive_once_in_sequence_while_marks_follow() {
    let (root, server) = (tempfile::tempdir().unwrap(), RedisServer::start());
    let running = Running::start(settings(root.path()), &server.url());
    let writer = running.writer();
    running.calls(1200);
    eventually("all records are in the stream", || Stream::read(&server).sequences(writer).len() >= 1200);
    let record = &running.metrics.record;
    assert_eq!(running.metrics.redis.usage.get(), 1);
    eventually("they count as unconfirmed and grow older", || {
        record.unconfirmed.get() == 1200 && record.oldest_unconfirmed.get() > 0.0
    });
    confirm(&server, writer, 1200);
    eventually("the mark is seen", || record.unconfirmed.get() == 0 && record.oldest_unconfirmed.get() == 0.0);
    assert_eq!(Stream::read(&server).sequences(writer), (1..=1200).collect::<Vec<_>>());
    running.stop();
}

#[test]
fn no_final_behind_a_beat_ends_before_its_clock() {
    let (root, server) = (tempfile::tempdir().unwrap(), RedisServer::start());
    let running = Running::start(settings(root.path()), &server.url());
    let writer = running.writer();
    let mut beats = 0;
    eventually("three beats", || {
        let flight = running.log.admit(admission()).unwrap();
        finish_in(flight, TimeDelta::milliseconds(-900));
        beats = Stream::read(&server).beats.len();
        beats >= 3
    });
    let last = running.call();
    eventually("all records are in the stream", || Stream::read(&server).sequences(writer).last() == Some(&last));
    let stream = Stream::read(&server);
    for (_, beat) in &stream.beats {
        let later = stream.finals.iter().filter(|(_, sequence, _)| *sequence > beat.sequence);
        for (_, sequence, record) in later {
            assert!(record.completed_at >= beat.clock, "{sequence} ended before {beat:?}");
        }
    }
    assert!(stream.beats.is_sorted_by_key(|(_, beat)| beat.clock));
    running.stop();
}

#[test]
fn a_call_dropped_without_an_end_is_recorded_as_aborted() {
    let (root, server) = (tempfile::tempdir().unwrap(), RedisServer::start());
    let running = Running::start(settings(root.path()), &server.url());
    let mut flight = running.log.admit(admission()).unwrap();
    flight.progress(chunks(4));
    drop(flight);
    drop(running.log.admit(admission()).unwrap());
    eventually("both records are in the stream", || Stream::read(&server).finals.len() == 2);
    let stream = Stream::read(&server);
    let found: Vec<_> = stream
        .finals
        .iter()
        .map(|(_, _, record)| (record.outcome, record.delivered, record.error.as_deref(), record.facts.ot))
        .collect();
    assert_eq!(found, [(Outcome::Aborted, true, None, 4), (Outcome::Aborted, false, Some("ABORTED"), 0)]);
    running.stop();
}

#[test]
fn a_stop_waits_for_calls_in_flight_and_ships_everything_with_a_farewell() {
    let (root, server) = (tempfile::tempdir().unwrap(), RedisServer::start());
    let running = Running::start(settings(root.path()), &server.url());
    let writer = running.writer();
    let flight = running.log.admit(admission()).unwrap();
    running.ask_to_stop();
    running.calls(100);
    assert_eq!(finish(flight), 101);
    let log = running.log.clone();
    running.stop();
    assert!(matches!(log.admit(admission()), Err(LogUnwritable::Closed)));
    let stream = Stream::read(&server);
    assert_eq!(stream.sequences(writer), (1..=101).collect::<Vec<_>>());
    assert!(matches!(stream.entries.last(), Some(Entry::Beat { beat, .. }) if beat.closed && beat.sequence == 101));
}

#[test]
fn segments_go_only_when_they_are_confirmed_and_old() {
    let (root, server) = (tempfile::tempdir().unwrap(), RedisServer::start());
    let brief = Settings { keep: Duration::from_secs(2), ..settings(root.path()) };
    let running = Running::start(brief, &server.url());
    let writer = running.writer();
    running.calls(400);
    let full = segments(root.path(), writer);
    assert!(full > 8, "{full} segments");
    let count_beats = || Stream::read(&server).beats.len();
    let beats = count_beats();
    eventually("they are old", || count_beats() >= beats + 4);
    assert!(segments(root.path(), writer) >= full, "deleted without a mark");
    confirm(&server, writer, 200);
    eventually("the confirmed half is gone", || segments(root.path(), writer) <= full / 2 + 2);
    let beats = count_beats();
    eventually("it is swept again", || count_beats() >= beats + 3);
    assert!(segments(root.path(), writer) >= full / 2 - 1, "deleted beyond the mark");
    confirm(&server, writer, 400);
    eventually("only the one written to and the reserve stay", || segments(root.path(), writer) <= 3);
    running.stop();
}

#[test]
fn confirmed_segments_stay_as_long_as_they_are_kept() {
    let (root, server) = (tempfile::tempdir().unwrap(), RedisServer::start());
    let running = Running::start(settings(root.path()), &server.url());
    let writer = running.writer();
    running.calls(400);
    let full = segments(root.path(), writer);
    confirm(&server, writer, 400);
    eventually("the mark is seen and swept by", || Stream::read(&server).beats.len() >= 4);
    assert!(segments(root.path(), writer) >= full);
    running.stop();
}

#[test]
fn a_stream_that_nobody_reads_stops_growing() {
    let (root, server) = (tempfile::tempdir().unwrap(), RedisServer::start());
    let mut fill = redis::Pipeline::new();
    for _ in 0..200_000 {
        fill.cmd("XADD").arg("usage").arg("*").arg("x").arg("y").ignore();
    }
    fill.query::<()>(&mut server.connection()).unwrap();
    let running = Running::start(settings(root.path()), &server.url());
    running.calls(50);
    eventually("the marks are read", || running.metrics.record.unconfirmed.get() == 50);
    let length = || redis::cmd("XLEN").arg("usage").query::<u64>(&mut server.connection()).unwrap();
    assert_eq!(length(), 200_000);
    redis::cmd("DEL").arg("usage").exec(&mut server.connection()).unwrap();
    eventually("the records arrive", || Stream::read(&server).finals.len() == 50);
    running.stop();
}
