//! Tests of `shipment`: whatever is lost, repeated, delayed or restored, in the end everything is confirmed.

use proptest::prelude::*;

use super::*;
use crate::record::marks;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn what_was_sent_is_not_sent_again_while_the_mark_moves() {
    let mut shipment = Shipment::default();
    shipment.connected(Some("a"));
    shipment.sent(10, SECOND);
    for mark in 1..10 {
        shipment.confirmed(Some(mark), 10, SECOND * u32::try_from(mark * 29).unwrap());
        assert_eq!((shipment.next(), shipment.mark()), (11, mark));
    }
}

#[test]
fn a_mark_that_stalls_for_thirty_seconds_brings_a_resend() {
    let mut shipment = Shipment::default();
    shipment.sent(5, SECOND);
    shipment.confirmed(Some(3), 5, SECOND * 2);
    shipment.confirmed(Some(3), 5, SECOND * 31);
    assert_eq!(shipment.next(), 6);
    shipment.confirmed(Some(3), 5, SECOND * 32);
    assert_eq!(shipment.next(), 4);
}

#[test]
fn an_idle_writer_never_stalls() {
    let mut shipment = Shipment::default();
    shipment.sent(5, SECOND);
    shipment.confirmed(Some(5), 5, SECOND * 2);
    shipment.confirmed(Some(5), 5, SECOND * 4000);
    assert_eq!(shipment.next(), 6);
}

#[test]
fn after_an_idle_hour_a_mark_that_stalls_is_waited_for_as_long_as_ever() {
    let mut shipment = Shipment::default();
    shipment.sent(5, SECOND);
    shipment.confirmed(Some(5), 5, SECOND * 2);
    shipment.sent(5, SECOND * 3);
    for hour in 0..3 {
        shipment.confirmed(Some(5), 5, SECOND * 3600 * hour);
    }
    let later = SECOND * 9000;
    shipment.sent(6, later);
    shipment.confirmed(Some(5), 6, later + PATIENCE - SECOND);
    assert_eq!(shipment.next(), 7);
    shipment.confirmed(Some(5), 6, later + PATIENCE);
    assert_eq!(shipment.next(), 6);
}

#[test]
fn each_resend_in_vain_doubles_the_patience() {
    let mut shipment = Shipment::default();
    let mut resends = Vec::new();
    for second in 0_u32..2000 {
        if shipment.next() == 1 {
            resends.push(second);
            shipment.sent(1, SECOND * second);
        }
        shipment.confirmed(None, 1, SECOND * second);
    }
    assert_eq!(resends, [0, 31, 92, 213, 454, 935, 1416, 1897]);
}

#[test]
fn another_run_of_redis_gets_everything_above_the_mark() {
    let mut shipment = Shipment::default();
    shipment.connected(Some("a"));
    shipment.sent(5, SECOND);
    shipment.confirmed(Some(2), 5, SECOND);
    shipment.connected(Some("a"));
    assert_eq!(shipment.next(), 6);
    shipment.connected(Some("b"));
    assert_eq!(shipment.next(), 3);
    shipment.sent(5, SECOND);
    shipment.connected(None);
    assert_eq!(shipment.next(), 3);
}

#[test]
fn a_mark_that_falls_or_vanishes_brings_a_resend() {
    let mut shipment = Shipment::default();
    shipment.sent(9, SECOND);
    shipment.confirmed(Some(9), 9, SECOND);
    shipment.confirmed(Some(4), 9, SECOND);
    assert_eq!((shipment.next(), shipment.mark()), (5, 4));
    shipment.sent(9, SECOND);
    shipment.confirmed(None, 9, SECOND);
    assert_eq!((shipment.next(), shipment.mark()), (5, 4));
    shipment.sent(9, SECOND);
    shipment.confirmed(None, 9, SECOND);
    assert_eq!(shipment.next(), 10, "a mark that is still away is no news");
}

#[test]
fn a_mark_above_everything_given_out_confirms_no_more_than_that() {
    let mut shipment = Shipment::default();
    shipment.confirmed(Some(900), 9, SECOND);
    assert_eq!((shipment.next(), shipment.mark()), (10, 9));
}

#[derive(Clone, Debug)]
enum Step {
    Write(u64),
    Ship { at_most: u64, lose: Vec<bool> },
    EmptyRedis,
    Ingest(usize),
    Restore(u64),
    Look,
    Wait(u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (1_u64..6).prop_map(Step::Write),
        (1_u64..8, proptest::collection::vec(any::<bool>(), 8))
            .prop_map(|(at_most, lose)| Step::Ship { at_most, lose }),
        Just(Step::EmptyRedis),
        (1_usize..8).prop_map(Step::Ingest),
        (0_u64..40).prop_map(Step::Restore),
        Just(Step::Look),
        (1_u32..40).prop_map(Step::Wait),
    ];
    proptest::collection::vec(step, 0..60)
}

/// A writer, a Redis that loses things, and an ingester.
#[derive(Default)]
struct World {
    shipment: Shipment,
    last: u64,
    run: u32,
    stream: Vec<u64>,
    published: Option<u64>,
    stored: u64,
    now: Duration,
}

impl World {
    fn step(&mut self, step: &Step) {
        match step {
            Step::Write(count) => self.last += count,
            Step::Ship { at_most, lose } => self.ship(*at_most, lose),
            Step::EmptyRedis => {
                self.run += 1;
                self.stream.clear();
                self.published = None;
                self.shipment.connected(Some(&self.run.to_string()));
            }
            Step::Ingest(count) => {
                let batch: Vec<u64> = self.stream.drain(..(*count).min(self.stream.len())).collect();
                self.stored = marks::advance(self.stored, batch.into_iter().map(|sequence| sequence..=sequence));
                self.published = Some(self.stored);
            }
            Step::Restore(mark) => {
                self.stored = self.stored.min(*mark);
                self.published = Some(self.stored);
            }
            Step::Look => self.shipment.confirmed(self.published, self.last, self.now),
            Step::Wait(seconds) => self.now += SECOND * *seconds,
        }
    }

    fn ship(&mut self, at_most: u64, lose: &[bool]) {
        let batch = self.shipment.next()..=self.last.min(self.shipment.next() + at_most - 1);
        let Some(end) = batch.clone().last() else { return };
        self.stream.extend(batch.zip(lose).filter(|(_, lost)| !**lost).map(|(sequence, _)| sequence));
        self.shipment.sent(end, self.now);
    }

    fn settle(&mut self) {
        for _ in 0..100 {
            self.step(&Step::Ship { at_most: 8, lose: vec![false; 8] });
            self.step(&Step::Ingest(8));
            self.step(&Step::Look);
            self.step(&Step::Wait(30));
        }
    }
}

proptest! {
    #[test]
    fn in_the_end_everything_is_confirmed(steps in steps()) {
        let mut world = World::default();
        for step in steps {
            let known = world.stored.max(world.shipment.mark());
            world.step(&step);
            prop_assert!(world.shipment.mark() <= known, "a mark that nobody published");
            prop_assert!(world.shipment.next() > world.shipment.mark(), "the cursor fell behind the mark");
            prop_assert!(world.shipment.next() <= world.last + 1, "the cursor ran ahead of the log");
        }
        world.settle();
        prop_assert_eq!((world.stored, world.shipment.mark()), (world.last, world.last));
    }
}
