//! A process killed in the middle of calls, and what the next one makes of its log.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use gateway::clock::Clock;
use gateway::metrics::Metrics;
use gateway::usage::{Settings, UsageLog};
use protocol::ids::WriterId;
use protocol::usage::Outcome;

use super::platform::*;
use crate::redis_server::RedisServer;

/// The sequences of the finals that an adopter writes begin here, whatever the log was left with.
const LOST: u64 = 1 << 32;

/// Tells the child where to write.
const FOLDER: &str = "TEST_LOG_FOLDER";

/// What the child of the tests below does: writes until it is killed.
#[test]
#[ignore = "run as a child process by the tests of this file"]
#[expect(clippy::print_stdout, reason = "tells its parent when to kill it")]
fn child_that_is_killed_in_flight() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let metrics = Arc::new(Metrics::new().unwrap());
    let roomy = Settings { segment: 1 << 20, ..settings(Path::new(&folder)) };
    let log = UsageLog::open(roomy, Clock::default(), metrics).unwrap();
    for _ in 0..150 {
        finish(log.admit(admission()).unwrap());
    }
    let mut streamed = log.admit(admission()).unwrap();
    for count in 1..=7 {
        streamed.progress(chunks(count));
    }
    let _silent = log.admit(admission()).unwrap();
    println!("\nwriter {}", log.writer());
    loop {
        std::thread::park();
    }
}

/// Runs the child, kills it, and gives its writer.
fn killed_writer(folder: &Path) -> WriterId {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "usage::killed::child_that_is_killed_in_flight"])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let writer = lines.map_while(Result::ok).find_map(|line| line.strip_prefix("writer ").map(str::to_owned));
    child.kill().unwrap();
    child.wait().unwrap();
    writer.expect("the child says who it is").parse().unwrap()
}

fn adopted_all(server: &RedisServer, writer: WriterId, last: u64) {
    eventually("the dead writer's records and farewell are in the stream", || {
        let stream = Stream::read(server);
        stream.is_closed(writer) && stream.sequences(writer).last() == Some(&last)
    });
}

#[test]
fn calls_of_a_killed_process_are_lost_with_what_they_delivered() {
    let (root, server) = (tempfile::tempdir().unwrap(), RedisServer::start());
    let writer = killed_writer(root.path());
    let running = Running::start(settings(root.path()), &server.url());
    adopted_all(&server, writer, LOST + 1);
    let stream = Stream::read(&server);
    assert_eq!(stream.sequences(writer), (1..=150).chain([LOST, LOST + 1]).collect::<Vec<_>>());
    let lost: Vec<_> = stream
        .finals
        .iter()
        .filter(|(_, _, record)| record.outcome == Outcome::Lost)
        .map(|(_, sequence, record)| (*sequence, record.delivered, record.error.as_deref(), record.facts.ot))
        .collect();
    assert_eq!(lost, [(LOST, true, None, 7), (LOST + 1, false, Some("LOST"), 0)]);
    assert_eq!(running.metrics.record.adopted.get(), 1);
    let metrics = prometheus::TextEncoder::new().encode_to_string(&running.metrics.registry.gather()).unwrap();
    for counted in [r#"attempts_total{outcome="lost"} 2"#, r#"tokens_total{direction="completion"} 7"#] {
        assert!(metrics.contains(&format!("\nchutes_gateway_{counted}\n")), "{metrics}");
    }
    running.stop();
}

#[test]
fn an_adopter_that_is_gone_again_leaves_the_same_records_to_the_next() {
    let (root, mut server) = (tempfile::tempdir().unwrap(), RedisServer::start());
    let writer = killed_writer(root.path());
    let first = Running::start(settings(root.path()), &server.url());
    adopted_all(&server, writer, LOST + 1);
    let before = Stream::read(&server).finals;
    let own = first.writer();
    first.stop();
    server.kill();
    server.restart();
    let second = Running::start(settings(root.path()), &server.url());
    adopted_all(&server, writer, LOST + 1);
    let stream = Stream::read(&server);
    assert_eq!(stream.finals, before);
    eventually("the first adopter is known to be gone", || Stream::read(&server).is_closed(own));
    assert_eq!(second.metrics.record.adopted.get(), 2);
    second.stop();
}

#[test]
fn a_dead_writers_folder_goes_once_all_is_confirmed_and_old() {
    let (root, server) = (tempfile::tempdir().unwrap(), RedisServer::start());
    let writer = killed_writer(root.path());
    let running = Running::start(Settings { keep: Duration::ZERO, ..settings(root.path()) }, &server.url());
    adopted_all(&server, writer, LOST + 1);
    confirm(&server, writer, LOST);
    eventually("the mark is seen", || running.metrics.record.unconfirmed.get() == 1);
    assert!(root.path().join(writer.to_string()).exists());
    confirm(&server, writer, LOST + 1);
    eventually("the folder is gone", || !root.path().join(writer.to_string()).exists());
    running.stop();
}

#[test]
fn an_adopted_log_takes_no_more_room_than_its_records() {
    let (root, server) = (tempfile::tempdir().unwrap(), RedisServer::start());
    let writer = killed_writer(root.path());
    let running = Running::start(settings(root.path()), &server.url());
    adopted_all(&server, writer, LOST + 1);
    let folder = root.path().join(writer.to_string());
    let sizes = fs::read_dir(folder.join("segments")).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len());
    let size: u64 = sizes.sum();
    assert!((200_000..400_000).contains(&size), "{size} bytes");
    assert!(!folder.join("slots").exists());
    running.stop();
}

#[test]
fn what_a_dead_writer_had_confirmed_is_not_shipped_again() {
    let (root, server) = (tempfile::tempdir().unwrap(), RedisServer::start());
    let writer = killed_writer(root.path());
    confirm(&server, writer, 149);
    let running = Running::start(settings(root.path()), &server.url());
    adopted_all(&server, writer, LOST + 1);
    assert_eq!(Stream::read(&server).sequences(writer), [150, LOST, LOST + 1]);
    running.stop();
}

/// The segment that holds the end of the log, with the length of what is written.
fn end_of_log(root: &Path, writer: WriterId) -> (PathBuf, u64) {
    let folder = root.join(writer.to_string()).join("segments");
    let mut segments: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    segments.sort();
    segments
        .into_iter()
        .rev()
        .find_map(|path| {
            let bytes = fs::read(&path).unwrap();
            let written = bytes.iter().rposition(|byte| *byte != 0)? + 1;
            Some((path, written as u64))
        })
        .unwrap()
}

#[test]
fn a_last_frame_written_in_part_counts_as_not_written() {
    let (root, server) = (tempfile::tempdir().unwrap(), RedisServer::start());
    let writer = killed_writer(root.path());
    let (path, written) = end_of_log(root.path(), writer);
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&[0; 100], written - 100).unwrap();
    let running = Running::start(settings(root.path()), &server.url());
    adopted_all(&server, writer, LOST);
    let stream = Stream::read(&server);
    assert_eq!(stream.sequences(writer), (1..=150).chain([LOST]).collect::<Vec<_>>());
    assert_eq!(stream.finals.iter().filter(|(_, _, record)| record.outcome == Outcome::Lost).count(), 1);
    running.stop();
}

#[test]
fn a_log_without_its_slots_still_ends_its_calls() {
    let (root, server) = (tempfile::tempdir().unwrap(), RedisServer::start());
    let writer = killed_writer(root.path());
    fs::remove_file(root.path().join(writer.to_string()).join("slots")).unwrap();
    let running = Running::start(settings(root.path()), &server.url());
    adopted_all(&server, writer, LOST + 1);
    running.stop();
}

#[test]
fn nobody_adopts_the_log_of_a_live_process() {
    let (root, server) = (tempfile::tempdir().unwrap(), RedisServer::start());
    let first = Running::start(settings(root.path()), &server.url());
    let flight = first.log.admit(admission()).unwrap();
    let second = Running::start(settings(root.path()), &server.url());
    eventually("both live", || {
        let stream = Stream::read(&server);
        [first.writer(), second.writer()].iter().all(|writer| stream.beats.iter().any(|(one, _)| one == writer))
    });
    finish(flight);
    eventually("the record is shipped", || Stream::read(&server).finals.len() == 1);
    assert_eq!(Stream::read(&server).finals[0].2.outcome, Outcome::Finished);
    assert_eq!((first.metrics.record.adopted.get(), second.metrics.record.adopted.get()), (0, 0));
    first.stop();
    second.stop();
}
