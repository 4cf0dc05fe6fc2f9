//! The size of a proof: what its issue states, or a small run of the same code for every `make test`.

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
