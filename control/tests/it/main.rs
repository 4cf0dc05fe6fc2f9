//! Control against a real PostgreSQL, a real Redis and a real S3 endpoint.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, also in the fixtures it shares with others")]

mod admin;
mod admin_chutes;
mod duties;
mod export_hour;
mod fuzz;
mod http;
mod ingest_usage;
mod invocations;
mod ledger;
mod object_store;
mod postgres;
mod processes;
mod publish_directory;
mod publish_principals;
mod queries;
mod redis_server;
mod world;
