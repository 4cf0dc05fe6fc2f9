//! Integration tests of the gateway's parts against a real Redis and real files.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, also in the fixtures it shares with others")]

mod answers;
mod auth;
mod bad_input;
mod bounds;
mod call;
mod client;
mod control_stand_in;
mod directory;
mod early;
mod edge;
mod edge_limits;
mod frames;
mod freezing_proxy;
mod fuzz;
mod http2;
mod idempotent;
mod instance;
mod keepalive;
mod lease;
mod limit;
mod platform;
mod ports;
mod principals;
mod redis_replies;
mod redis_server;
mod redis_states;
mod routing;
mod signed;
mod slow;
mod tunnels;
mod upgrade;
mod uploads;
mod usage;
mod who;
