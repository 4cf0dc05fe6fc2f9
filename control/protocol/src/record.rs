//! Sans-I/O cores of the record path, driven alike by the gateway, by control and by tests.

pub mod adoption;
mod ages;
pub mod appender;
pub mod batch;
pub mod book;
pub mod disk;
pub mod frame;
pub mod hours;
pub mod ingest;
pub mod ledger;
pub mod log;
pub mod marks;
pub mod reader;
pub mod recovery;
pub mod segment;
pub mod settle;
pub mod shipment;
pub mod shipped;
pub mod shipper;
pub mod slot;

#[cfg(test)]
mod sample;
#[cfg(test)]
mod simulator;
