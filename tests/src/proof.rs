//! What a proof is asked for: its size, as its issue states it or small for every `make test`, and its seed.

use clap::{Parser, ValueEnum};

/// How much evidence a run gathers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Size {
    /// Enough to see the code work.
    Small,
    /// What the issue states.
    Full,
}

/// What the environment says about proofs.
#[derive(Parser)]
struct Asked {
    /// How much evidence to gather.
    #[arg(long, env = "CHUTES_PROOF", value_enum, default_value = "small")]
    size: Size,

    /// From which number all that is drawn at random follows; without it, another one each time.
    #[arg(long, env = "CHUTES_PROOF_SEED")]
    seed: Option<u64>,
}

/// The number that all random choices of a proof follow from; the proof prints it, so that it can be asked for again.
#[must_use]
pub fn seed() -> u64 {
    Asked::parse_from(["proof"]).seed.unwrap_or_else(rand::random)
}

impl Size {
    /// The size that this run was asked for; a word that names none ends the process with a message.
    #[must_use]
    pub fn asked() -> Self {
        Asked::parse_from(["proof"]).size
    }

    /// The value for this size.
    #[must_use]
    pub fn pick<T>(self, small: T, full: T) -> T {
        match self {
            Self::Small => small,
            Self::Full => full,
        }
    }
}
