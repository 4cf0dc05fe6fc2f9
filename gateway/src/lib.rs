#![doc = include_str!("../README.md")]

pub mod auth;
pub mod balance;
pub mod body;
pub mod call;
pub mod clock;
pub mod config;

pub mod directory;
pub mod edge;
#[cfg(test)]
mod fixture;
pub mod forward;
pub mod framing;
pub mod host;
pub mod idempotent;
pub mod instance;
pub mod internal;
pub mod lease;
pub mod leaving;
pub mod lifecycle;
pub mod limit;
pub mod llm;
pub mod metrics;
pub mod principals;
pub mod proxy;
mod redis_run;
pub mod refusal;
pub mod reroll;
pub mod retry;
pub mod server;
pub mod strikes;
mod sync;
pub mod telemetry;
pub mod tls;
pub mod upgrade;
pub mod usage;
