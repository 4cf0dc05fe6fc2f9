//! Estimates how much slower an instance is than its peers, from what this process sees of their answers.
//!
//! A measurement is the logarithm of a time over the time that the instances of the same chute usually take for work
//! of that size. What all instances have in common cancels when an instance is compared with its peers.

use std::time::Duration;

/// Classes of size, each twice as large as the one before.
const CLASSES: usize = 24;
/// Measurements of a class before it tells anything.
const USUAL: u32 = 4;
/// Measurements over which the usual time of a class is taken.
const LONG: u32 = 64;
/// Measurements of an instance before it is compared with others.
const KNOWN: u32 = 4;
/// Measurements over which an instance's trend is taken.
const SHORT: u32 = 8;
/// Age from which a trend tells nothing.
const STALE: Duration = Duration::from_secs(30);
/// Logarithm of the ratio that one measurement counts for at most.
const OUTLIER: f32 = 2.1;
/// How many times slower than its peers an instance must be to be treated as slow.
const SLOW: f64 = 1.5;
/// How many times slower an instance is treated as at most.
const SLOWEST: f64 = 8.0;

/// The work that was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Until the first piece of a stream.
    Prefill {
        /// Estimated tokens of the prompt.
        tokens: u64,
    },
    /// An answer in one piece.
    Whole {
        /// Its size.
        bytes: u64,
    },
    /// One chunk of a stream that flows.
    Chunk,
}

/// Two things that an instance may be slow at.
#[derive(Clone, Copy, Debug)]
enum Aspect {
    Start,
    Flow,
}

/// What the instances of one chute usually take.
#[derive(Clone, Debug, Default)]
pub(super) struct Usual {
    prefill: [Mean; CLASSES],
    whole: [Mean; CLASSES],
    chunk: Mean,
}

/// The trends of one instance.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Speed {
    start: Trend,
    flow: Trend,
}

/// What is typical among some instances.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Typical {
    start: Option<f32>,
    flow: Option<f32>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Mean {
    value: f32,
    count: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Trend {
    mean: Mean,
    at: Duration,
}

impl Work {
    fn aspect(self) -> Aspect {
        match self {
            Self::Prefill { .. } | Self::Whole { .. } => Aspect::Start,
            Self::Chunk => Aspect::Flow,
        }
    }
}

impl Usual {
    /// How much longer than usual it took, as a logarithm; none while too little is known. Learns from it.
    pub(super) fn excess(&mut self, work: Work, took: Duration) -> Option<f32> {
        let usual = match work {
            Work::Prefill { tokens } => &mut self.prefill[class(tokens)],
            Work::Whole { bytes } => &mut self.whole[class(bytes)],
            Work::Chunk => &mut self.chunk,
        };
        let took = (took.as_secs_f32().max(1e-6)).ln();
        let excess = (usual.count >= USUAL).then(|| (took - usual.value).clamp(-OUTLIER, OUTLIER));
        usual.add(took, LONG);
        excess
    }
}

impl Speed {
    /// Takes in a measurement.
    pub(super) fn note(&mut self, work: Work, excess: f32, now: Duration) {
        let trend = match work.aspect() {
            Aspect::Start => &mut self.start,
            Aspect::Flow => &mut self.flow,
        };
        if !trend.is_fresh(now) {
            *trend = Trend::default();
        }
        trend.mean.add(excess, SHORT);
        trend.at = now;
    }

    /// How many times slower than its peers it is; 1 unless it is clearly slow.
    pub(super) fn slowness(&self, typical: Typical, now: Duration) -> f64 {
        let over = |own: &Trend, typical: Option<f32>| Some(own.known(now)? - typical?);
        let start = over(&self.start, typical.start).unwrap_or_default();
        let flow = over(&self.flow, typical.flow).unwrap_or_default();
        let ratio = f64::from(start.max(flow)).exp();
        if ratio < SLOW { 1.0 } else { ratio.min(SLOWEST) }
    }

    /// Whether anything is known of it that is not too old.
    pub(super) fn is_known(&self, now: Duration) -> bool {
        self.start.known(now).is_some() || self.flow.known(now).is_some()
    }
}

impl Typical {
    /// What is typical among instances: the lower median of those that are known, so that of two the faster one is.
    pub(super) fn of<'a>(speeds: impl Iterator<Item = &'a Speed> + Clone, now: Duration, room: &mut Vec<f32>) -> Self {
        let mut median = |aspect: fn(&Speed) -> &Trend| {
            room.clear();
            room.extend(speeds.clone().filter_map(|speed| aspect(speed).known(now)));
            let middle = room.len().checked_sub(1)? / 2;
            Some(*room.select_nth_unstable_by(middle, f32::total_cmp).1)
        };
        Self { start: median(|speed| &speed.start), flow: median(|speed| &speed.flow) }
    }
}

impl Mean {
    /// Adds a value: an exact mean of the first `memory`, then a moving one.
    fn add(&mut self, value: f32, memory: u32) {
        self.count = (self.count + 1).min(memory);
        self.value += (value - self.value) / self.count as f32;
    }
}

impl Trend {
    fn known(&self, now: Duration) -> Option<f32> {
        (self.mean.count >= KNOWN && self.is_fresh(now)).then_some(self.mean.value)
    }

    fn is_fresh(&self, now: Duration) -> bool {
        now.saturating_sub(self.at) < STALE
    }
}

fn class(size: u64) -> usize {
    usize::try_from(size.max(1).ilog2()).unwrap_or(CLASSES).min(CLASSES - 1)
}

#[cfg(test)]
mod tests;
