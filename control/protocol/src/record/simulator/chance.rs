//! Chance from a seed, and the faults that strike by it; each is counted.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

/// Random numbers from a seed (splitmix64).
#[derive(Clone, Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub(crate) fn pick<'a, T>(&mut self, choices: &'a [T]) -> Option<&'a T> {
        if choices.is_empty() { None } else { Some(&choices[self.below(choices.len())]) }
    }
}

/// What may go wrong by itself, one in so many times (0: never).
pub(crate) const FAULTS: [&str; 18] = [
    "disk: write refused",
    "disk: write cut short",
    "disk: fsync refused",
    "disk: fsync refused and pages dropped",
    "disk: fsync lied",
    "disk: full",
    "disk: create refused",
    "disk: read refused",
    "disk: remove refused",
    "disk: truncate refused",
    "disk: folder fsync refused",
    "redis: connection refused",
    "redis: command lost",
    "redis: reply lost",
    "redis: pipeline cut",
    "redis: rest of a pipeline late",
    "postgres: lost before commit",
    "postgres: lost after commit",
];

/// The faults of a run.
#[derive(Debug)]
pub(crate) struct Weather {
    pub(crate) chance: RefCell<Chance>,
    pub(crate) rates: BTreeMap<&'static str, u32>,
    pub(crate) calm: Cell<bool>,
    pub(crate) counts: RefCell<BTreeMap<&'static str, u64>>,
}

impl Weather {
    pub(crate) fn new(rates: BTreeMap<&'static str, u32>) -> Rc<Self> {
        let (chance, calm) = (RefCell::new(Chance::new(0)), Cell::new(false));
        Rc::new(Self { chance, rates, calm, counts: RefCell::default() })
    }

    /// Whether a fault strikes now.
    pub(crate) fn strikes(&self, fault: &'static str) -> bool {
        let rate = self.rates.get(fault).copied().unwrap_or(0);
        let struck = !self.calm.get() && rate > 0 && self.chance.borrow_mut().below(rate as usize) == 0;
        if struck {
            self.count(fault);
        }
        struck
    }

    pub(crate) fn count(&self, fault: &'static str) {
        *self.counts.borrow_mut().entry(fault).or_default() += 1;
    }

    pub(crate) fn below(&self, bound: usize) -> usize {
        self.chance.borrow_mut().below(bound)
    }
}
