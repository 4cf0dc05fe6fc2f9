//! End-to-end tests on a running platform.

mod http2;
mod openai;
mod pickle;
mod records;
mod revocation;
mod scene;
mod scripts;
