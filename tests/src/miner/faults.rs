//! How an instance behaves: its speed, and how it fails when it is told to.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Speed and failures of one instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Behaviour {
    /// Tokens per second of a stream; also the pace of answers in one piece.
    pub tokens_per_second: f64,
    /// Milliseconds before the first token.
    pub prefill_ms: u64,
    /// What goes wrong.
    pub fault: Fault,
    /// For how many calls it goes wrong; none: until told otherwise.
    pub faulty_calls: Option<u32>,
}

/// What goes wrong with a call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Nothing.
    None,
    /// An error in clear, as the SDK answers it.
    Status {
        /// The status.
        code: u16,
        /// The body's `detail`.
        detail: String,
    },
    /// No answer at all; the connection stays open.
    Hang,
    /// 200 with a stream that ends before its first piece.
    EmptyStream,
    /// The connection is cut after this many content chunks.
    DieAfter {
        /// Content chunks sent before; an answer in one piece has as many parts as tokens.
        chunks: usize,
    },
    /// An answer that stops without a word after this many content chunks; the connection stays open.
    StallAfter {
        /// Content chunks sent before; an answer in one piece has as many parts as tokens.
        chunks: usize,
    },
    /// Answers that were not sealed under the instance's key.
    Garble,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self { tokens_per_second: 200.0, prefill_ms: 20, fault: Fault::None, faulty_calls: None }
    }
}

impl Behaviour {
    /// Time before the first token.
    #[must_use]
    pub fn prefill(&self) -> Duration {
        Duration::from_millis(self.prefill_ms)
    }

    /// Time between two tokens; a speed that is not positive means as fast as possible.
    #[must_use]
    pub fn per_token(&self) -> Duration {
        let seconds = 1.0 / self.tokens_per_second;
        if seconds.is_finite() && seconds > 0.0 { Duration::from_secs_f64(seconds.min(60.0)) } else { Duration::ZERO }
    }

    /// What goes wrong with the next call; counts it.
    pub fn next_fault(&mut self) -> Fault {
        match &mut self.faulty_calls {
            None => self.fault.clone(),
            Some(0) => Fault::None,
            Some(left) => {
                *left -= 1;
                self.fault.clone()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_ends_after_its_calls() {
        let mut behaviour = Behaviour { fault: Fault::Hang, faulty_calls: Some(2), ..Behaviour::default() };
        assert_eq!(behaviour.next_fault(), Fault::Hang);
        assert_eq!(behaviour.next_fault(), Fault::Hang);
        assert_eq!(behaviour.next_fault(), Fault::None);
    }

    #[test]
    fn a_speed_that_makes_no_sense_means_no_wait() {
        for speed in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let behaviour = Behaviour { tokens_per_second: speed, ..Behaviour::default() };
            assert_eq!(behaviour.per_token(), Duration::ZERO);
        }
    }
}
