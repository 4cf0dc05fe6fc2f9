//! Rules without I/O: same input, same answer.

pub mod chute;
pub mod export;
pub mod export_hour;
pub mod fingerprint;
pub mod host;
pub mod literal;
pub mod money;
pub mod pace;
pub mod posting;
pub mod quota;
pub mod settlement;

#[cfg(test)]
mod python;
#[cfg(test)]
mod sample;
