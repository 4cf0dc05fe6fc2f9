#![doc = include_str!("../README.md")]

pub mod credential;
pub mod directory;
pub mod envelope;
pub mod headers;
pub mod ids;
pub mod keys;
pub mod lease;
pub mod load;
pub mod principal;
pub mod record;
pub mod reply;
pub mod sealing;
pub mod session;
pub mod signing;
pub mod slug;
pub mod usage;
