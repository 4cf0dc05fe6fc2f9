//! The edge: TLS, who, how much, where to, stream, record.

pub mod balance;
pub mod body;
pub mod clock;
pub mod config;
#[cfg(test)]
mod fixture;
pub mod host;
pub mod instance;
pub mod llm;
pub mod metrics;
pub mod refusal;
pub mod usage;
