//! End-to-end tests on a running platform.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, also in the fixtures it shares with others")]

mod books;
mod dashboards;
mod disconnect;
mod exports;
mod faults;
mod first_light;
mod http2;
mod idempotent;
mod ingest;
mod instances;
mod lanes;
mod limits;
mod load;
mod local;
mod openai;
mod operator;
mod overload;
mod pickle;
mod records;
mod reuse;
mod revocation;
mod rush;
mod scene;
mod scripts;
mod upgrade;
