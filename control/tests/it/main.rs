//! Control against a real PostgreSQL and a real Redis.

<<<<<<< HEAD
mod admin;
mod admin_chutes;
mod duties;
mod http;
=======
mod export_hour;
mod ingest_usage;
mod invocations;
mod ledger;
mod object_store;
>>>>>>> main
mod postgres;
mod processes;
mod publish_directory;
mod publish_principals;
mod queries;
mod redis_server;
<<<<<<< HEAD
mod world;
=======
>>>>>>> main
