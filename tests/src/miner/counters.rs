//! What an instance has seen, for tests to compare with what the platform says.

use serde::{Deserialize, Serialize};

/// Early ends that are kept; tests look at the latest.
const KEPT: usize = 4096;

/// What one instance has counted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Counters {
    /// Requests whose signature and envelope were right.
    pub accepted: u64,
    /// Requests refused because of their signature or envelope.
    pub rejected: u64,
    /// Requests that got 429 because of the concurrency.
    pub limited: u64,
    /// Requests in the pickle form that could not be served.
    pub pickled: u64,
    /// Requests from 127.0.0.1, which a real SDK container would trust without a signature.
    pub trusted_peer: u64,
    /// Answers sent to their end.
    pub completed: u64,
    /// Calls being answered.
    pub in_flight: usize,
    /// Answers that stopped without a word, as told.
    pub stalled: u64,
    /// The most calls that were being answered at once.
    pub most_in_flight: usize,
    /// The latest answers that the other side did not wait for.
    pub closed_early: Vec<ClosedEarly>,
}

/// An answer that the other side did not wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClosedEarly {
    /// Unix time in microseconds at which the instance noticed.
    pub at_us: i64,
    /// Content chunks handed out by then; of an answer in one piece its parts.
    pub chunks: usize,
}

impl Counters {
    /// Notes an early end.
    pub fn close_early(&mut self, closed: ClosedEarly) {
        if self.closed_early.len() == KEPT {
            self.closed_early.remove(0);
        }
        self.closed_early.push(closed);
    }
}
