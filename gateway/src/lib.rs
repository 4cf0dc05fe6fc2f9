//! The edge: TLS, who, how much, where to, stream, record.

pub mod auth;
pub mod clock;
pub mod config;
pub mod directory;
pub mod limit;
pub mod metrics;
pub mod principals;
pub mod refusal;
