//! What instances get and give.

pub mod request;
pub mod stream;
pub mod verdict;
