//! Control against a real PostgreSQL and a real Redis.

mod postgres;
mod queries;
