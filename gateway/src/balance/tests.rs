//! Picks: load, places, trials, last resorts, slow instances.

use proptest::prelude::*;
use uuid::Uuid;

use super::*;

const RULE: Rule = Rule { open: Duration::from_secs(2), longest: Duration::from_secs(60) };

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(super) fn instances(count: u128) -> Vec<InstanceId> {
    (1..=count).map(|number| InstanceId(Uuid::from_u128(number))).collect()
}

pub(super) fn with(places: u32, instances: &[InstanceId]) -> Vec<Candidate> {
    instances.iter().map(|instance| Candidate { instance: *instance, places, elsewhere: 0 }).collect()
}

fn chosen(pick: Pick) -> Reservation {
    match pick {
        Pick::Chosen { reservation, .. } => reservation,
        other => panic!("nothing was chosen: {other:?}"),
    }
}

/// Fails as often as opens the breaker.
fn open(balance: &mut Balance, instance: InstanceId, now: Duration) {
    (0..3).for_each(|_| balance.failed(instance, now, 0));
}

/// Lets the instances be measured, so that the second is three times as slow as the others.
fn make_second_slow(balance: &mut Balance, all: &[InstanceId], now: Duration) {
    let chute = ChuteId(Uuid::nil());
    for _ in 0..40 {
        for instance in all {
            let took = Duration::from_millis(if *instance == all[1] { 30 } else { 10 });
            balance.instances.entry(*instance).or_default();
            balance.measured(chute, *instance, Work::Chunk, took, now);
        }
    }
}

#[test]
fn the_instance_with_the_fewest_calls_is_picked() {
    let all = instances(3);
    let mut balance = Balance::new(RULE);
    let _first = chosen(balance.pick(&with(9, &all[..1]), &[], at(0), 0));
    let _second = chosen(balance.pick(&with(9, &all[..2]), &[], at(0), 0));
    let third = chosen(balance.pick(&with(9, &all), &[], at(0), 0));
    assert_eq!(third.instance(), all[2]);
}

#[test]
fn ties_are_broken_by_the_random_number() {
    let all = instances(3);
    let pick = |random| chosen(Balance::new(RULE).pick(&with(1, &all), &[], at(0), random)).instance();
    assert_eq!([0, 1, 2, 3].map(pick), [all[0], all[1], all[2], all[0]]);
}

#[test]
fn c3_a_pick_takes_the_place_so_that_concurrency_is_never_exceeded() {
    let all = instances(2);
    let mut balance = Balance::new(RULE);
    let mut held: Vec<Reservation> =
        (0..6).map(|random| chosen(balance.pick(&with(3, &all), &[], at(0), random))).collect();
    assert_eq!(held.iter().filter(|place| place.instance() == all[0]).count(), 3);
    assert_eq!(balance.pick(&with(3, &all), &[], at(0), 0), Pick::AllBusy);
    let given_back = held.pop().unwrap();
    let free = given_back.instance();
    balance.release(given_back, Outcome::Works, at(1), 0);
    assert_eq!(chosen(balance.pick(&with(3, &all), &[], at(1), 7)).instance(), free);
}

#[test]
fn calls_of_other_gateways_count_towards_the_load_but_not_against_the_places() {
    let all = instances(2);
    let mut balance = Balance::new(RULE);
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
    let mut balance = Balance::new(RULE);
    assert_eq!(chosen(balance.pick(&with(9, &all), &all[..1], at(0), 0)).instance(), all[1]);
    assert_eq!(balance.pick(&with(9, &all), &all, at(0), 0), Pick::None);
    assert_eq!(balance.pick(&with(9, &[]), &[], at(0), 0), Pick::None);
}

#[test]
fn one_failure_steers_the_very_next_pick_away() {
    let all = instances(2);
    let mut balance = Balance::new(RULE);
    let failing = chosen(balance.pick(&with(9, &all), &[], at(0), 0));
    let failed = failing.instance();
    balance.release(failing, Outcome::Fails, at(0), 0);
    let held: Vec<Reservation> =
        (0..9).map(|random| chosen(balance.pick(&with(9, &all), &[], at(0), random))).collect();
    assert!(held.iter().all(|place| place.instance() != failed));
    assert_eq!(chosen(balance.pick(&with(9, &all), &[], at(0), 0)).instance(), failed, "when nobody else has a place");
}

#[test]
fn a_full_instance_is_passed_over_but_never_struck_out() {
    let all = instances(2);
    let mut balance = Balance::new(RULE);
    for _ in 0..20 {
        let place = chosen(balance.pick(&with(9, &all[..1]), &[], at(0), 0));
        balance.release(place, Outcome::Full, at(0), 0);
    }
    assert_eq!(balance.census(at(0)), Census { averted: 1, ..Census::default() });
    assert_eq!(chosen(balance.pick(&with(9, &all), &[], at(0), 0)).instance(), all[1]);
}

#[test]
fn an_open_instance_gets_no_call_while_another_has_a_place_then_exactly_one_trial() {
    let all = instances(2);
    let mut balance = Balance::new(RULE);
    open(&mut balance, all[0], at(0));
    let held: Vec<Reservation> =
        (0..5).map(|random| chosen(balance.pick(&with(99, &all), &[], at(1), random))).collect();
    assert!(held.iter().all(|place| place.instance() == all[1]));
    let trial = chosen(balance.pick(&with(99, &all), &[], at(2), 0));
    assert_eq!(trial.instance(), all[0]);
    assert_eq!(chosen(balance.pick(&with(99, &all), &[], at(9), 0)).instance(), all[1]);
    balance.release(trial, Outcome::Works, at(9), 0);
    assert_eq!(chosen(balance.pick(&with(99, &all), &[], at(9), 0)).instance(), all[0]);
}

#[test]
fn a_call_that_has_failed_is_no_trial_while_there_is_a_better_place() {
    let all = instances(3);
    let mut balance = Balance::new(RULE);
    open(&mut balance, all[0], at(0));
    let second = chosen(balance.pick(&with(1, &all), &all[2..], at(5), 0));
    assert_eq!(second.instance(), all[1]);
    assert_eq!(chosen(balance.pick(&with(1, &all), &all[2..], at(5), 0)).instance(), all[0]);
}

#[test]
fn a_chute_whose_instances_are_all_open_still_has_one_call_at_each() {
    let all = instances(3);
    let mut balance = Balance::new(RULE);
    all.iter().for_each(|instance| open(&mut balance, *instance, at(0)));
    let mut held: Vec<Reservation> =
        (0..3).map(|random| chosen(balance.pick(&with(9, &all), &[], at(0), random))).collect();
    assert_eq!(balance.pick(&with(9, &all), &[], at(0), 0), Pick::AllOpen);
    assert_eq!(balance.census(at(0)).half_open, 3);
    let answering = held.pop().unwrap();
    balance.answered(&answering, at(0));
    let next = chosen(balance.pick(&with(9, &all), &[], at(0), 0));
    assert_eq!(next.instance(), answering.instance());
}

#[test]
fn the_least_bad_of_open_instances_is_the_one_that_is_tried_next_anyway() {
    let all = instances(2);
    let mut balance = Balance::new(RULE);
    open(&mut balance, all[1], at(0));
    open(&mut balance, all[0], at(1));
    assert_eq!(chosen(balance.pick(&with(9, &all), &[], at(1), 0)).instance(), all[1]);
}

#[test]
fn c13_nothing_to_pick_says_why() {
    let all = instances(2);
    let mut balance = Balance::new(RULE);
    open(&mut balance, all[0], at(0));
    let _place = chosen(balance.pick(&with(1, &all), &[], at(1), 0));
    let _resort = chosen(balance.pick(&with(1, &all), &[], at(1), 0));
    assert_eq!(balance.pick(&with(1, &all), &[], at(1), 0), Pick::AllBusy);
    assert_eq!(balance.pick(&with(1, &all[..1]), &[], at(1), 0), Pick::AllOpen);
    assert_eq!(balance.pick(&with(1, &all), &all[1..], at(1), 0), Pick::AllOpen);
}

#[test]
fn a_slow_instance_is_picked_when_its_peers_have_three_times_as_many_calls() {
    let all = instances(2);
    let mut balance = Balance::new(RULE);
    make_second_slow(&mut balance, &all, at(0));
    let picks: Vec<Reservation> = (0..8).map(|_| chosen(balance.pick(&with(9, &all), &[], at(0), 0))).collect();
    assert_eq!(picks.iter().filter(|place| place.instance() == all[1]).count(), 2);
    assert_eq!(balance.census(at(0)).slow, 1);
}

#[test]
fn a_slow_instance_gets_half_of_what_its_speed_earns_however_few_calls_there_are() {
    let all = instances(4);
    let mut balance = Balance::new(RULE);
    make_second_slow(&mut balance, &all, at(0));
    let mut picks = 0;
    for random in 0..2400 {
        let place = chosen(balance.pick(&with(9, &all), &[], at(0), random));
        picks += u32::from(place.instance() == all[1]);
        balance.release(place, Outcome::Works, at(0), 0);
    }
    assert!((90..=110).contains(&picks), "a sixth of a quarter of 2400 is 100, not {picks}");
}

#[test]
fn c17_a_new_instance_is_used_at_the_next_pick_and_a_deleted_one_never_again() {
    let all = instances(3);
    let mut balance = Balance::new(RULE);
    let held: Vec<Reservation> = (0..4).map(|_| chosen(balance.pick(&with(9, &all[..2]), &[], at(0), 0))).collect();
    assert_eq!(chosen(balance.pick(&with(9, &all), &[], at(0), 0)).instance(), all[2]);
    let after_deletion: Vec<InstanceId> =
        (0..9).map(|random| chosen(balance.pick(&with(9, &all[1..]), &[], at(0), random)).instance()).collect();
    assert!(!after_deletion.contains(&all[0]));
    assert_eq!(held.len(), 4);
}

#[test]
fn memory_holds_only_what_is_busy_or_in_the_directory() {
    let all = instances(3);
    let mut balance = Balance::new(RULE);
    let held = chosen(balance.pick(&with(9, &all[..1]), &[], at(0), 0));
    all.iter().for_each(|instance| balance.failed(*instance, at(0), 0));
    let [kept, gone] = [1, 2].map(|number| ChuteId(Uuid::from_u128(number)));
    for chute in [kept, gone] {
        balance.measured(chute, all[2], Work::Chunk, at(1), at(1));
    }
    balance.keep(|instance| instance == all[2], |chute| chute == kept);
    assert_eq!((balance.instances.len(), balance.usual.len()), (2, 1));
    balance.release(held, Outcome::Unknown, at(1), 0);
    balance.keep(|instance| instance == all[2], |_| false);
    assert_eq!(balance.instances.keys().copied().collect::<Vec<_>>(), [all[2]]);
    assert!(balance.usual.is_empty());
}

#[test]
fn the_mean_counts_idle_candidates_and_not_the_call_being_placed() {
    let all = instances(4);
    let mut balance = Balance::new(RULE);
    let held: Vec<Reservation> = (0..3).map(|_| chosen(balance.pick(&with(9, &all[..1]), &[], at(0), 0))).collect();
    let Pick::Chosen { mean_connections, .. } = balance.pick(&with(9, &all), &[], at(0), 0) else {
        panic!("all are free")
    };
    assert!((mean_connections - 0.75).abs() < 1e-12);
    assert_eq!(held.len(), 3);
}

#[test]
fn a_random_number_is_a_fraction() {
    assert_eq!([0, 1 << 63].map(fraction), [0.0, 0.5]);
    assert!(fraction(u64::MAX) < 1.0);
}

#[test]
#[ignore = "a measurement: cargo test --release -p gateway --lib measure -- --ignored --nocapture"]
#[expect(clippy::print_stdout, reason = "a measurement is read")]
fn measure_a_pick_and_its_release() {
    for count in [20, 500] {
        let all = instances(count);
        let candidates = with(99, &all);
        let mut balance = Balance::new(RULE);
        make_second_slow(&mut balance, &all, at(0));
        let start = std::time::Instant::now();
        for random in 0..10_000 {
            let place = chosen(balance.pick(&candidates, &[], at(0), random));
            balance.release(place, Outcome::Works, at(0), random);
        }
        let micros = start.elapsed().as_secs_f64() * 1e6 / 10_000.0;
        println!("{count} instances: {micros:.2} µs");
        assert!(micros < 1000.0);
    }
}

proptest! {
    /// Any order of picks, releases and failures keeps the places, loses none, and leaves no trial hanging.
    #[test]
    fn places_are_neither_exceeded_nor_lost(steps in prop::collection::vec((0_u8..6, any::<u64>()), 0..200)) {
        let all = instances(5);
        let mut balance = Balance::new(RULE);
        let mut held: Vec<Reservation> = Vec::new();
        for (second, (act, random)) in (0_u64..).zip(steps) {
            let now = at(second);
            let place = usize::try_from(random % 97).unwrap();
            match act {
                0..=2 => match balance.pick(&with(3, &all), &[], now, random) {
                    Pick::Chosen { reservation, .. } => held.push(reservation),
                    Pick::AllBusy | Pick::AllOpen => prop_assert!(held.len() >= all.len(), "somebody takes a call"),
                    Pick::None => prop_assert!(false, "there are candidates"),
                },
                3 | 4 if !held.is_empty() => {
                    let outcome = [Outcome::Works, Outcome::Fails, Outcome::Unknown, Outcome::Full][place % 4];
                    let released = held.swap_remove(place % held.len());
                    balance.release(released, outcome, now, random);
                }
                _ => balance.failed(all[place % 5], now, random),
            }
            for instance in &all {
                let count = held.iter().filter(|place| place.instance() == *instance).count();
                prop_assert!(count <= 3);
                let counted = balance.instances.get(instance).map_or(0, |known| known.outstanding);
                prop_assert_eq!(counted as usize, count);
            }
        }
        for place in held {
            balance.release(place, Outcome::Unknown, at(1000), 0);
        }
        let tried = balance.instances.values().filter(|known| known.breaker.rank(true, at(1000)).is_none()).count();
        prop_assert_eq!((tried, balance.census(at(1000)).open), (0, 0));
        balance.keep(|_| false, |_| false);
        prop_assert!(balance.instances.is_empty());
    }
}
