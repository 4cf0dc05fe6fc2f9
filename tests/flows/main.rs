//! End-to-end tests on a running platform.

mod books;
mod faults;
mod http2;
mod load;
mod openai;
mod pickle;
mod records;
mod revocation;
mod scene;
mod scripts;
