//! Rules without I/O: same input, same answer.

pub mod chute;
pub mod fingerprint;
pub mod host;
pub mod money;
pub mod posting;
pub mod quota;
