//! One small type for each system outside.

pub mod bus;
pub mod store;
pub mod usage_stream;
