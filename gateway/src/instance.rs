//! One request to an instance: how it is sent, how its answer is opened, how its failure is judged.

pub mod request;
pub mod stream;
pub mod verdict;
