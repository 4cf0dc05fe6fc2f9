//! Picks, strikes and trials.

use proptest::prelude::*;
use uuid::Uuid;

use super::*;

const STRIKE: Duration = Duration::from_secs(10);

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn instances(count: u128) -> Vec<InstanceId> {
    (1..=count).map(|number| InstanceId(Uuid::from_u128(number))).collect()
}

fn with(places: u32, instances: &[InstanceId]) -> Vec<Candidate> {
    instances.iter().map(|instance| Candidate { instance: *instance, places, elsewhere: 0 }).collect()
}

fn chosen(pick: Pick) -> Reservation {
    match pick {
        Pick::Chosen { reservation, .. } => reservation,
        other => panic!("nothing was chosen: {other:?}"),
    }
}

#[test]
fn the_instance_with_the_fewest_calls_is_picked() {
    let all = instances(3);
    let mut balance = Balance::new(STRIKE);
    let _first = chosen(balance.pick(&with(9, &all[..1]), &[], at(0), 0));
    let _second = chosen(balance.pick(&with(9, &all[..2]), &[], at(0), 0));
    let third = chosen(balance.pick(&with(9, &all), &[], at(0), 0));
    assert_eq!(third.instance(), all[2]);
}

#[test]
fn ties_are_broken_by_the_random_number() {
    let all = instances(3);
    let picked: Vec<InstanceId> =
        (0..4).map(|random| chosen(Balance::new(STRIKE).pick(&with(1, &all), &[], at(0), random)).instance()).collect();
    assert_eq!(picked, [all[0], all[1], all[2], all[0]]);
}

#[test]
fn c3_a_pick_takes_the_place_so_that_concurrency_is_never_exceeded() {
    let all = instances(2);
    let mut balance = Balance::new(STRIKE);
    let mut held: Vec<Reservation> =
        (0..6).map(|random| chosen(balance.pick(&with(3, &all), &[], at(0), random))).collect();
    assert_eq!(held.iter().filter(|place| place.instance() == all[0]).count(), 3);
    assert_eq!(balance.pick(&with(3, &all), &[], at(0), 0), Pick::AllBusy);
    let given_back = held.pop().unwrap();
    let free = given_back.instance();
    balance.release(given_back, Outcome::Works, at(1));
    assert_eq!(chosen(balance.pick(&with(3, &all), &[], at(1), 7)).instance(), free);
}

#[test]
fn calls_of_other_gateways_count_towards_the_load_but_not_against_the_places() {
    let all = instances(2);
    let mut balance = Balance::new(STRIKE);
    let busy_elsewhere = Candidate { instance: all[0], places: 1, elsewhere: 7 };
    let here = Candidate { instance: all[1], places: 9, elsewhere: 0 };
    let held: Vec<Reservation> =
        (0..7).map(|random| chosen(balance.pick(&[busy_elsewhere, here], &[], at(0), random))).collect();
    assert!(held.iter().all(|place| place.instance() == all[1]));
    let Pick::Chosen { reservation, mean_connections } = balance.pick(&[busy_elsewhere], &[], at(0), 0) else {
        panic!("its place is free");
    };
    assert!((mean_connections - 7.0).abs() < 1e-12);
    assert_eq!(balance.pick(&[busy_elsewhere], &[], at(0), 0), Pick::AllBusy);
    assert_eq!(reservation.instance(), all[0]);
}

#[test]
fn an_instance_is_not_tried_twice_in_a_call() {
    let all = instances(2);
    let mut balance = Balance::new(STRIKE);
    assert_eq!(chosen(balance.pick(&with(9, &all), &all[..1], at(0), 0)).instance(), all[1]);
    assert_eq!(balance.pick(&with(9, &all), &all, at(0), 0), Pick::None);
    assert_eq!(balance.pick(&with(9, &[]), &[], at(0), 0), Pick::None);
}

#[test]
fn c13_nothing_to_pick_says_why() {
    let all = instances(2);
    let mut balance = Balance::new(STRIKE);
    balance.strike(all[0], at(0));
    let _place = chosen(balance.pick(&with(1, &all), &[], at(1), 0));
    assert_eq!(balance.pick(&with(1, &all), &[], at(1), 0), Pick::AllBusy);
    assert_eq!(balance.pick(&with(1, &all[..1]), &[], at(1), 0), Pick::AllStruck);
}

#[test]
fn a_failing_instance_is_left_alone_then_gets_exactly_one_trial_call() {
    let all = instances(1);
    let mut balance = Balance::new(STRIKE);
    let place = chosen(balance.pick(&with(9, &all), &[], at(0), 0));
    balance.release(place, Outcome::Fails, at(0));
    assert_eq!(balance.pick(&with(9, &all), &[], at(9), 0), Pick::AllStruck);
    let trial = chosen(balance.pick(&with(9, &all), &[], at(10), 0));
    assert_eq!(balance.pick(&with(9, &all), &[], at(10), 0), Pick::AllBusy);
    balance.release(trial, Outcome::Fails, at(11));
    assert_eq!(balance.pick(&with(9, &all), &[], at(20), 0), Pick::AllStruck);
    let trial = chosen(balance.pick(&with(9, &all), &[], at(21), 0));
    balance.answered(&trial);
    let beside = chosen(balance.pick(&with(9, &all), &[], at(21), 0));
    balance.release(trial, Outcome::Works, at(22));
    balance.release(beside, Outcome::Works, at(22));
    assert!(balance.loads.is_empty());
}

#[test]
fn a_trial_that_showed_nothing_leaves_the_next_call_to_be_the_trial() {
    let all = instances(1);
    let mut balance = Balance::new(STRIKE);
    balance.strike(all[0], at(0));
    let trial = chosen(balance.pick(&with(9, &all), &[], at(10), 0));
    balance.release(trial, Outcome::Open, at(11));
    let _next = chosen(balance.pick(&with(9, &all), &[], at(11), 0));
    assert_eq!(balance.pick(&with(9, &all), &[], at(11), 0), Pick::AllBusy);
}

#[test]
fn an_older_call_that_ends_openly_does_not_end_the_trial_of_another() {
    let all = instances(1);
    let mut balance = Balance::new(STRIKE);
    let older = chosen(balance.pick(&with(9, &all), &[], at(0), 0));
    balance.strike(all[0], at(0));
    let _trial = chosen(balance.pick(&with(9, &all), &[], at(10), 0));
    balance.release(older, Outcome::Open, at(11));
    assert_eq!(balance.pick(&with(9, &all), &[], at(30), 0), Pick::AllBusy);
}

#[test]
fn c17_a_new_instance_is_used_at_the_next_pick_and_a_deleted_one_never_again() {
    let all = instances(3);
    let mut balance = Balance::new(STRIKE);
    let held: Vec<Reservation> = (0..4).map(|_| chosen(balance.pick(&with(9, &all[..2]), &[], at(0), 0))).collect();
    assert_eq!(chosen(balance.pick(&with(9, &all), &[], at(0), 0)).instance(), all[2]);
    let after_deletion: Vec<InstanceId> =
        (0..9).map(|random| chosen(balance.pick(&with(9, &all[1..]), &[], at(0), random)).instance()).collect();
    assert!(!after_deletion.contains(&all[0]));
    assert_eq!(held.len(), 4);
}

#[test]
fn memory_holds_only_what_is_busy_or_struck_out_and_there() {
    let all = instances(3);
    let mut balance = Balance::new(STRIKE);
    let held = chosen(balance.pick(&with(9, &all[..1]), &[], at(0), 0));
    balance.strike(all[0], at(0));
    balance.strike(all[1], at(0));
    balance.strike(all[2], at(0));
    balance.keep(|instance| instance == all[2]);
    assert_eq!(balance.loads.len(), 2);
    balance.release(held, Outcome::Open, at(1));
    balance.keep(|instance| instance == all[2]);
    assert_eq!(balance.loads.keys().copied().collect::<Vec<_>>(), [all[2]]);
}

#[test]
fn the_mean_counts_idle_candidates_and_not_the_call_being_placed() {
    let all = instances(4);
    let mut balance = Balance::new(STRIKE);
    let held: Vec<Reservation> = (0..3).map(|_| chosen(balance.pick(&with(9, &all[..1]), &[], at(0), 0))).collect();
    let Pick::Chosen { mean_connections, .. } = balance.pick(&with(9, &all), &[], at(0), 0) else {
        panic!("all are free")
    };
    assert!((mean_connections - 0.75).abs() < 1e-12);
    assert_eq!(held.len(), 3);
}

proptest! {
    /// Any order of picks, releases and strikes keeps concurrency, and leaves nothing behind when all is over.
    #[test]
    fn places_are_neither_exceeded_nor_lost(steps in prop::collection::vec((0_u8..6, any::<u64>()), 0..200)) {
        let all = instances(5);
        let mut balance = Balance::new(STRIKE);
        let mut held: Vec<Reservation> = Vec::new();
        for (second, (act, random)) in (0_u64..).zip(steps) {
            let now = at(second);
            let place = usize::try_from(random % 97).unwrap();
            match act {
                0..=2 => {
                    if let Pick::Chosen { reservation, .. } = balance.pick(&with(3, &all), &[], now, random) {
                        held.push(reservation);
                    }
                }
                3 | 4 if !held.is_empty() => {
                    let outcome = [Outcome::Works, Outcome::Fails, Outcome::Open][place % 3];
                    let released = held.swap_remove(place % held.len());
                    balance.release(released, outcome, now);
                }
                _ => balance.strike(all[place % 5], now),
            }
            for instance in &all {
                let count = held.iter().filter(|place| place.instance() == *instance).count();
                prop_assert!(count <= 3);
                prop_assert_eq!(balance.load(*instance).outstanding as usize, count);
            }
        }
        for place in held {
            balance.release(place, Outcome::Works, at(1000));
        }
        balance.keep(|_| false);
        prop_assert!(balance.loads.is_empty());
    }
}
