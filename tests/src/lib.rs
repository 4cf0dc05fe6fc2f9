//! Starts the whole platform on one machine with real parts.

pub mod proof;
pub mod venv;
