//! Rules without I/O: what numbers mean, how they are printed, which file holds them.

pub mod batch;
pub mod export;
pub mod export_hour;
pub mod literal;
pub mod pace;
pub mod settlement;
