//! Tests of `shipper`: what is due when, and what becomes of a connection that fails.

use std::sync::{Arc, Mutex};

use super::*;
use crate::record::book::{Book, Position};
use crate::record::simulator::disk::{SimulatedDisk, sound};

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn clock() -> DateTime<Utc> {
    DateTime::from_timestamp(1_767_225_600, 0).unwrap()
}

/// A log with so many finals.
fn stored(finals: u64) -> Stored<SimulatedDisk> {
    let mut book = Book::default();
    book.opened(1, 0);
    (1..=finals).for_each(|sequence| book.noted(sequence, clock()));
    Stored { writer: WriterId::random(), disk: sound(), book: Arc::new(Mutex::new(book)) }
}

/// What is due, by name.
fn due(shipper: &mut Shipper<SimulatedDisk>, now: Duration) -> &'static str {
    match shipper.step(now, clock()) {
        Step::Connect => "connect",
        Step::ReadMarks(_) => "marks",
        Step::Read(..) => "read",
        Step::Add(_) => "add",
        Step::Sweep(_) => "sweep",
        Step::Again => "again",
        Step::Rest => "rest",
    }
}

/// The log was read up to this sequence.
fn read(shipper: &mut Shipper<SimulatedDisk>, through: u64, now: Duration) -> bool {
    let writer = shipper.logs[0].stored.writer;
    let entries = vec![Entry::Gap { writer, from: 1, through, damaged: false }];
    let batch = Batch { entries, next: through + 1, position: Position { segment: 1, offset: 9 } };
    let entries = shipper.read(0, Ok(batch)).unwrap();
    shipper.added(entries.len(), now)
}

/// One that ships so many finals, connected and told the marks at 0.
fn connected(finals: u64) -> Shipper<SimulatedDisk> {
    let mut shipper = Shipper::new(stored(finals), Duration::ZERO);
    assert_eq!([due(&mut shipper, Duration::ZERO), due(&mut shipper, Duration::ZERO)], ["sweep", "connect"]);
    shipper.connected(Some("a"), Duration::ZERO);
    assert_eq!(due(&mut shipper, Duration::ZERO), "marks");
    shipper.marks(vec![None], 0, Duration::ZERO);
    shipper
}

#[test]
fn a_round_reads_each_log_then_beats_and_begins_again_at_once_if_something_was_sent() {
    let mut shipper = connected(3);
    assert_eq!(due(&mut shipper, Duration::ZERO), "read");
    assert!(!read(&mut shipper, 3, Duration::ZERO));
    assert_eq!(due(&mut shipper, Duration::ZERO), "add");
    assert!(!shipper.added(1, Duration::ZERO));
    assert_eq!(due(&mut shipper, Duration::ZERO), "again");
    assert_eq!(due(&mut shipper, Duration::ZERO), "rest");
}

#[test]
fn marks_are_read_each_quarter_second_and_beats_and_sweeps_come_each_second() {
    let mut shipper = connected(0);
    assert_eq!(due(&mut shipper, Duration::ZERO), "add");
    shipper.added(1, Duration::ZERO);
    let found: Vec<(u64, &str)> = (0..1300)
        .flat_map(|at| std::iter::repeat_n(at, 4))
        .filter_map(|at| {
            let step = due(&mut shipper, millis(at));
            match step {
                "marks" => shipper.marks(vec![None], 0, millis(at)),
                "add" => drop(shipper.added(1, millis(at))),
                _ => {}
            }
            (step != "rest").then_some((at, step))
        })
        .collect();
    let right = [
        (250, "marks"),
        (500, "marks"),
        (750, "marks"),
        (1000, "sweep"),
        (1000, "marks"),
        (1000, "add"),
        (1250, "marks"),
    ];
    assert_eq!(found, right);
}

#[test]
fn nothing_is_added_to_a_stream_that_is_full() {
    for (length, step) in [(MAX_STREAM - 1, "read"), (MAX_STREAM, "rest")] {
        let mut shipper = connected(3);
        shipper.marks(vec![None], length, Duration::ZERO);
        assert_eq!(due(&mut shipper, Duration::ZERO), step, "{length} entries");
    }
    let mut shipper = connected(3);
    shipper.marks(vec![None], MAX_STREAM - 1, Duration::ZERO);
    assert_eq!(due(&mut shipper, Duration::ZERO), "read");
    read(&mut shipper, 2, Duration::ZERO);
    assert_eq!(due(&mut shipper, Duration::ZERO), "again");
    assert_eq!(due(&mut shipper, Duration::ZERO), "rest", "what was added counts before it is seen in the length");
}

#[test]
fn a_connection_that_fails_is_tried_again_later_and_later_until_something_was_added() {
    let mut shipper = connected(3);
    let mut now = millis(1);
    for (number, wait) in [100, 200, 400, 800, 1600, 3200, 5000, 5000].map(millis).into_iter().enumerate() {
        assert_eq!(shipper.failed(now, 1.0), number == 0, "only the first is told");
        shipper.sweep_at = now + wait * 2;
        assert_eq!(due(&mut shipper, now + wait - millis(1)), "rest");
        assert_eq!(due(&mut shipper, now + wait), "connect");
        now += wait;
    }
    shipper.connected(Some("a"), now);
    assert_eq!(due(&mut shipper, now), "marks");
    shipper.marks(vec![None], 0, now);
    assert_eq!(due(&mut shipper, now), "read");
    assert!(read(&mut shipper, 3, now), "it works again");
    assert!(shipper.failed(now, 0.5));
    shipper.sweep_at = now + millis(900);
    assert_eq!([due(&mut shipper, now + millis(49)), due(&mut shipper, now + millis(50))], ["rest", "connect"]);
}

#[test]
fn a_log_that_is_found_is_asked_for_before_anything_of_it_is_sent() {
    let mut shipper = connected(3);
    assert_eq!(due(&mut shipper, Duration::ZERO), "read");
    read(&mut shipper, 3, Duration::ZERO);
    shipper.add(stored(2), millis(1));
    assert_eq!(due(&mut shipper, millis(1)), "marks");
    assert_eq!(shipper.unconfirmed(), 5);
    assert_eq!(shipper.oldest_unconfirmed(), Some(clock()));
    shipper.marks(vec![Some(3), Some(1)], 0, millis(1));
    assert_eq!(shipper.unconfirmed(), 1);
    assert_eq!(due(&mut shipper, millis(1)), "read");
    shipper.marks(vec![Some(3), Some(2)], 0, millis(1));
    assert_eq!((shipper.unconfirmed(), shipper.oldest_unconfirmed()), (0, None));
}

#[test]
fn a_dead_writers_folder_goes_when_nothing_is_left_of_it_and_its_end_was_heard() {
    let mut shipper = connected(0);
    shipper.add(stored(0), Duration::ZERO);
    let adopted = shipper.logs[1].stored.writer;
    for (empty, farewell, finished) in [
        (false, Farewell::Heard, false),
        (true, Farewell::Said, false),
        (true, Farewell::Unsaid, false),
        (true, Farewell::Heard, true),
    ] {
        for one in &mut shipper.logs {
            one.farewell = farewell;
            let mut book = Book::default();
            if !empty {
                book.opened(1, 0);
            }
            *one.stored.book() = book;
        }
        let right = if finished { vec![adopted] } else { vec![] };
        assert_eq!(shipper.finished(), right, "{empty} {farewell:?}: never that of this process");
    }
    shipper.forget(adopted);
    assert_eq!(shipper.logs.len(), 1);
    assert_ne!(shipper.logs[0].stored.writer, adopted);
}

#[test]
fn it_is_done_when_the_end_of_its_own_log_was_told() {
    let mut shipper = connected(0);
    shipper.add(stored(0), Duration::ZERO);
    assert!(!shipper.is_done());
    shipper.logs[1].farewell = Farewell::Heard;
    assert!(!shipper.is_done());
    shipper.logs[0].farewell = Farewell::Said;
    shipper.logs[1].farewell = Farewell::Unsaid;
    assert!(shipper.is_done());
}

#[test]
fn a_batch_that_cannot_be_read_is_located_anew() {
    let mut shipper = connected(3);
    assert_eq!(due(&mut shipper, Duration::ZERO), "read");
    read(&mut shipper, 2, Duration::ZERO);
    assert!(shipper.logs[0].cursor.is_some());
    assert!(shipper.read(0, Err(io::ErrorKind::NotFound.into())).is_err());
    assert!(shipper.logs[0].cursor.is_none());
}
