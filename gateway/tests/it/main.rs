//! Integration tests of the gateway's parts against a real Redis and real files.
#![expect(clippy::unwrap_used, reason = "these are tests, their helpers too")]

mod redis_server;
mod usage;
