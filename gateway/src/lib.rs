//! The edge: TLS, who, how much, where to, stream, record.

pub mod clock;
pub mod config;
pub mod metrics;
pub mod refusal;
pub mod usage;
