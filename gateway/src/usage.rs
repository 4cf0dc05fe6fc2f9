//! What a call used: counted here, kept in the record log, shipped to control.

pub mod meter;
