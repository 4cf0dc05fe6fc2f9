//! Runs of the simulator: fresh seeds in every test run, seeds that once failed, planted bugs, and the proof.

use std::time::{Duration, Instant};

use super::*;

/// Seeds that found something once.
const REGRESSIONS: [u64; 12] = [
    1_233_938_384_902_393_493,
    1_738_777_864_154_085_745,
    6_295_556_928_347_850_781,
    6_295_556_928_347_864_412,
    8_331_634_435_942_279_244,
    11_232_929_729_580_593_537,
    9_474_802_886_448_740_820,
    9_474_802_886_448_740_851,
    12_903_389_024_711_031_509,
    12_903_389_024_711_031_614,
    14_554_855_908_956_370_364,
    17_715_741_817_982_950_767,
];

/// How long fresh seeds are run in every test run.
const MINUTE: Duration = Duration::from_secs(60);

/// How many steps the proof takes.
const PROOF: u64 = 10_000_000;

/// Runs seeds counted from `first` on two threads until `enough`.
fn run(first: u64, enough: impl Fn(&Figures, Duration) -> bool + Sync) -> Figures {
    let start = Instant::now();
    let worker = |offset: u64| {
        let mut figures = Figures::default();
        let mut seed = first.wrapping_add(offset);
        while !enough(&figures, start.elapsed()) {
            if let Err(wrong) = simulate(seed, None, &mut figures) {
                panic!("{wrong}\nrun it again with SIMULATOR_SEED={seed} and the test `the_seed_asked_for`");
            }
            seed = seed.wrapping_add(2);
        }
        figures
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(|| worker(1));
        let mut figures = worker(0);
        figures.merge(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        figures
    })
}

/// Takes most of a minute, by intent.
#[test]
#[expect(clippy::print_stdout, reason = "the seeds of a run are told")]
fn fresh_seeds_keep_every_promise() {
    let first = rand::random();
    println!("seeds from {first}");
    let figures = run(first, |_, elapsed| elapsed >= MINUTE);
    println!("{figures:#?}");
    assert!(figures.rows > 0 && figures.hours > 0);
}

#[test]
fn seeds_that_failed_once_pass() {
    for seed in REGRESSIONS {
        simulate(seed, None, &mut Figures::default()).unwrap_or_else(|wrong| panic!("{wrong}"));
    }
}

#[test]
fn a_seed_always_gives_the_same_run() {
    for seed in 0..20 {
        let figures = [0, 1].map(|_| {
            let mut figures = Figures::default();
            simulate(seed, None, &mut figures).unwrap_or_else(|wrong| panic!("{wrong}"));
            format!("{figures:?}")
        });
        assert_eq!(figures[0], figures[1]);
    }
}

#[test]
fn each_planted_bug_is_found() {
    for bug in [
        Bug::DeletesEarly,
        Bug::NeverSyncs,
        Bug::ForgetsWhatItHolds,
        Bug::MarkPassesGaps,
        Bug::LateRowsIntoTheirHour,
        Bug::AdoptsTheLiving,
        Bug::NoSlots,
        Bug::PublishesTooMuch,
        Bug::GivesDeliveredBack,
        Bug::Panics,
    ] {
        let mut figures = Figures::default();
        let found = (0..2000).find_map(|seed| simulate(seed, Some(bug), &mut figures).err());
        assert!(found.is_some(), "{bug:?} was not found in {} runs", figures.runs);
    }
}

#[test]
fn a_panic_is_told_with_its_seed_and_the_shortest_run_that_ends_in_it() {
    let run = |seed| simulate(seed, Some(Bug::Panics), &mut Figures::default()).map_err(|wrong| (seed, wrong)).err();
    let (seed, wrong) = (0..400).find_map(run).expect("a seed with an attempt that comes again");
    let lines: Vec<&str> = wrong.lines().collect();
    let [first, options, left] = lines[..] else { panic!("{wrong}") };
    assert_eq!(first, format!("seed {seed}: panicked: a planted panic"));
    let drawn = Options::draw(seed, Some(Bug::Panics));
    assert_eq!(options, format!("{drawn:?}"));
    let left: usize = left.split(' ').next().and_then(|number| number.parse().ok()).expect("a number of events");
    assert!(left < drawn.events / 10, "{left} of {} events left", drawn.events);
}

#[test]
#[ignore = "runs one seed again: SIMULATOR_SEED=… cargo test -p protocol the_seed_asked_for -- --ignored"]
fn the_seed_asked_for() {
    let seed = std::env::var_os("SIMULATOR_SEED").expect("SIMULATOR_SEED is set");
    let seed = seed.to_str().and_then(|seed| seed.parse().ok()).expect("a seed is a number");
    simulate(seed, None, &mut Figures::default()).unwrap_or_else(|wrong| panic!("{wrong}"));
}

#[test]
#[ignore = "long: make prove simulator"]
#[expect(clippy::print_stdout, reason = "a proof is read")]
fn proof() {
    let first: u64 = rand::random();
    let start = Instant::now();
    let figures = run(first, |figures, _| figures.steps >= PROOF / 2);
    println!("seeds: {} runs, from {first} on", figures.runs);
    println!("steps: {}", figures.steps);
    println!("attempts: {}, rows: {}, hours closed: {}", figures.attempts, figures.rows, figures.hours);
    println!("wall time: {:.0} s", start.elapsed().as_secs_f64());
    for (fault, count) in &figures.faults {
        println!("{count:>9}  {fault}");
    }
    assert!(figures.steps >= PROOF);
}
