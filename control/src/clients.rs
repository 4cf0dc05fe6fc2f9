//! The outside systems, each behind one small type.

pub mod board;
pub mod bus;
pub mod store;
pub mod usage_stream;
