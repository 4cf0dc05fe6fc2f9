#![doc = include_str!("../README.md")]

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
