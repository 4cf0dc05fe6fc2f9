//! Runs the target `export`.
#![no_main]

#[path = "../targets/export.rs"]
mod export;

libfuzzer_sys::fuzz_target!(|data: &[u8]| export::run(data));
