//! Control against a real PostgreSQL and a real Redis.

mod export_hour;
mod ingest_usage;
mod invocations;
mod ledger;
mod object_store;
mod postgres;
mod queries;
mod redis_server;
