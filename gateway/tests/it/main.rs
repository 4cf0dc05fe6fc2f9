//! Integration tests of the gateway's parts against a real Redis and real files.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, also in the fixtures it shares with others")]

mod auth;
mod bad_input;
mod call;
mod client;
mod control_stand_in;
mod directory;
mod edge;
mod freezing_proxy;
mod fuzz;
mod instance;
mod limit;
mod platform;
mod ports;
mod principals;
mod redis_server;
mod signed;
mod usage;
mod who;
