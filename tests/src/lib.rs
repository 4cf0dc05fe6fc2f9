//! Starts the whole platform on one machine with real parts.

pub mod admin;
pub mod certificates;
pub mod children;
pub mod clock;
pub mod config;
pub mod description;
pub mod local;
pub mod miner;
pub mod platform;
pub mod ports;
pub mod postgres;
pub mod private;
pub mod programs;
pub mod proof;
pub mod proxy;
pub mod redis;
pub mod sample;
pub mod screen;
pub mod secrets;
pub mod store;
pub mod venv;
pub mod web;
