//! Control against a real PostgreSQL and a real Redis.

mod admin;
mod admin_chutes;
mod duties;
mod http;
mod postgres;
mod processes;
mod publish_directory;
mod publish_principals;
mod queries;
mod redis_server;
mod world;
