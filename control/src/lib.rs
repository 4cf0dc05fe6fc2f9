//! Everything that decides and remembers: the only program with Postgres, one executable with a role per subcommand.

pub mod admin;
pub mod clients;
pub mod clock;
pub mod config;
pub mod db;
pub mod domain;
pub mod http;
pub mod lifecycle;
pub mod metrics;
pub mod state;
pub mod task;
pub mod telemetry;
