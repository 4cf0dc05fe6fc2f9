//! Which numbers an attempt is settled by: what the instance claims, within ten times what was counted.

use chrono::TimeDelta;

use crate::usage::{Facts, Kind};

#[cfg(test)]
mod tests;

/// A claim is believed up to this many times our own figure.
pub const TRUST: u64 = 10;

/// What is counted while an answer passes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Content chunks relayed (streams).
    pub chunks: u64,
    /// Bytes of completion text.
    pub bytes: u64,
    /// Prompt tokens the instance claims.
    pub prompt: Option<u64>,
    /// Completion tokens the instance claims.
    pub completion: Option<u64>,
    /// Microseconds to the first content chunk (streams).
    pub first_chunk_micros: Option<u64>,
    /// Whether the client was sent at least one chunk.
    pub delivered: bool,
}

/// Prompt tokens: the claim if it is at most ten times the estimate, else the estimate.
#[must_use]
pub fn prompt_tokens(claimed: Option<u64>, estimate: u64) -> u64 {
    believed(claimed, estimate)
}

/// Completion tokens: the claim if it is at most ten times the count, else the count.
#[must_use]
pub fn completion_tokens(claimed: Option<u64>, counted: u64) -> u64 {
    believed(claimed, counted)
}

/// The facts of an attempt of a kind with an estimated prompt, from its counters and the time it took.
#[must_use]
pub fn facts(kind: Kind, estimate: u64, counters: &Counters, took: TimeDelta) -> Facts {
    let tt = seconds(took);
    match kind {
        Kind::Stream => Facts {
            it: prompt_tokens(counters.prompt, estimate),
            ot: completion_tokens(counters.completion, counters.chunks),
            tokens: counters.chunks,
            ttft: counters.first_chunk_micros.map(micros_as_seconds),
            tt,
        },
        Kind::Complete => {
            let ot = completion_tokens(counters.completion, counters.bytes.div_ceil(4));
            Facts { it: prompt_tokens(counters.prompt, estimate), ot, tokens: ot, ttft: None, tt }
        }
        Kind::Steps | Kind::Time => Facts { tt, ..Facts::default() },
    }
}

fn believed(claimed: Option<u64>, own: u64) -> u64 {
    claimed.filter(|claimed| *claimed <= own.saturating_mul(TRUST)).unwrap_or(own)
}

fn seconds(span: TimeDelta) -> f64 {
    micros_as_seconds(span.num_microseconds().unwrap_or(0).max(0).cast_unsigned())
}

/// Exact for all spans below 285 years.
#[expect(clippy::cast_precision_loss, reason = "a span of microseconds fits the 53 bits of a float")]
fn micros_as_seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}
