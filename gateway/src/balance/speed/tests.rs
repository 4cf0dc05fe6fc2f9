//! Which instances count as slow, and that size, chance and lack of knowledge do not make one.

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

const NOW: Duration = Duration::from_secs(100);

fn millis(number: f64) -> Duration {
    Duration::from_secs_f64(number / 1000.0)
}

/// Some instances, measured in turns; what each takes is asked with its number and the turn.
fn measured(count: usize, turns: usize, mut takes: impl FnMut(usize, usize) -> (Work, Duration)) -> Vec<Speed> {
    let (mut usual, mut speeds) = (Usual::default(), vec![Speed::default(); count]);
    for turn in 0..turns {
        for (number, speed) in speeds.iter_mut().enumerate() {
            let (work, took) = takes(number, turn);
            if let Some(excess) = usual.excess(work, took) {
                speed.note(work, excess, NOW);
            }
        }
    }
    speeds
}

fn slowness(speeds: &[Speed]) -> Vec<f64> {
    let typical = Typical::of(speeds.iter(), NOW, &mut Vec::new());
    speeds.iter().map(|speed| speed.slowness(typical, NOW)).collect()
}

#[test]
fn an_instance_that_takes_three_times_as_long_is_found_in_each_kind_of_work() {
    for work in [Work::Prefill { tokens: 500 }, Work::Whole { bytes: 9000 }, Work::Chunk] {
        for count in [2, 3, 20] {
            let speeds = measured(count, 12, |number, _| (work, millis(if number == 1 { 300.0 } else { 100.0 })));
            let slowness = slowness(&speeds);
            assert!((2.0..=4.0).contains(&slowness[1]), "{work:?} {count}: {slowness:?}");
            assert!(slowness.iter().enumerate().all(|(number, times)| number == 1 || *times == 1.0), "{slowness:?}");
        }
    }
}

#[test]
fn slow_chunks_are_found_although_the_first_comes_in_time() {
    let speeds = measured(3, 40, |number, turn| match turn % 2 {
        0 => (Work::Prefill { tokens: 100 }, millis(50.0)),
        _ => (Work::Chunk, millis(if number == 0 { 30.0 } else { 10.0 })),
    });
    assert!(slowness(&speeds)[0] > 2.0);
}

#[test]
fn the_size_of_prompts_makes_nobody_slow() {
    let mut random = StdRng::seed_from_u64(1);
    // Instance 0 only gets long prompts, the others short ones, and some of each so that sizes are known.
    let speeds = measured(5, 400, |number, turn| {
        let tokens = if (number == 0) == (turn % 5 != 0) { random.random_range(20_000..60_000) } else { 100 };
        (Work::Prefill { tokens }, millis(20.0 + tokens as f64 / 20.0))
    });
    assert_eq!(slowness(&speeds), [1.0; 5]);
}

#[test]
fn what_all_instances_have_in_common_makes_nobody_slow() {
    let speeds =
        measured(4, 60, |_, turn| (Work::Prefill { tokens: 100 }, millis(if turn < 30 { 50.0 } else { 400.0 })));
    assert_eq!(slowness(&speeds), [1.0; 4]);
}

#[test]
fn few_measurements_old_ones_and_a_lonely_instance_tell_nothing() {
    let chunk = |slow: bool| (Work::Chunk, millis(if slow { 90.0 } else { 10.0 }));
    assert_eq!(slowness(&measured(2, 4, |number, _| chunk(number == 1))), [1.0, 1.0], "too few");
    assert_eq!(slowness(&measured(1, 90, |_, turn| chunk(turn > 45))), [1.0], "nobody to compare with");
    let speeds = measured(2, 40, |number, _| chunk(number == 1));
    let later = NOW + STALE;
    let typical = Typical::of(speeds.iter(), later, &mut Vec::new());
    assert_eq!(speeds[1].slowness(typical, later), 1.0);
    assert!(!speeds[1].is_known(later) && speeds[1].is_known(NOW));
}

#[test]
fn a_new_measurement_after_a_long_silence_begins_anew() {
    let mut speeds = measured(2, 40, |number, _| (Work::Chunk, millis(if number == 1 { 90.0 } else { 10.0 })));
    let later = NOW + STALE;
    speeds[1].note(Work::Chunk, 2.0, later);
    assert!(!speeds[1].is_known(later));
}

#[test]
fn one_outlier_makes_nobody_slow() {
    let speeds = measured(3, 41, |number, turn| {
        (Work::Prefill { tokens: 9 }, millis(if number == 0 && turn == 40 { 60_000.0 } else { 80.0 }))
    });
    assert_eq!(slowness(&speeds), [1.0; 3]);
}

#[test]
fn ordinary_scatter_makes_few_slow_and_none_for_long() {
    let mut random = StdRng::seed_from_u64(7);
    let mut scatter = move || {
        let normal: f64 = (0..12).map(|_| random.random_range(-0.5..0.5)).sum();
        (Work::Prefill { tokens: 300 }, millis(200.0 * (normal * 0.4).exp()))
    };
    let (mut usual, mut speeds) = (Usual::default(), vec![Speed::default(); 20]);
    let (mut slow, mut looks) = (0, 0);
    for _ in 0..500 {
        for speed in &mut speeds {
            let (work, took) = scatter();
            if let Some(excess) = usual.excess(work, took) {
                speed.note(work, excess, NOW);
            }
        }
        slow += slowness(&speeds).iter().filter(|times| **times > 1.0).count();
        looks += 20;
    }
    assert!(slow * 100 < looks, "{slow} of {looks}");
}

proptest! {
    /// Any times whatever give a slowness within its bounds.
    #[test]
    fn slowness_is_bounded(times in prop::collection::vec((0_usize..4, any::<u64>(), 0_u8..3, 0_u64..u64::MAX / 2), 0..200)) {
        let (mut usual, mut speeds) = (Usual::default(), vec![Speed::default(); 4]);
        for (number, size, kind, nanos) in times {
            let work = [Work::Chunk, Work::Prefill { tokens: size }, Work::Whole { bytes: size }][usize::from(kind)];
            if let Some(excess) = usual.excess(work, Duration::from_nanos(nanos)) {
                speeds[number].note(work, excess, NOW);
            }
        }
        let slowness = slowness(&speeds);
        prop_assert!(slowness.iter().all(|times| *times == 1.0 || (SLOW..=SLOWEST).contains(times)), "{:?}", slowness);
    }
}
