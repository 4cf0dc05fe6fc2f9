//! Integration tests of the gateway's parts against a real Redis and real files.
#![expect(clippy::unwrap_used, reason = "these are tests, their helpers too")]

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, also in the fixtures it shares with others")]

mod auth;
mod control_stand_in;
mod directory;
mod freezing_proxy;
mod limit;
mod principals;
mod redis_server;
mod who;
mod usage;
