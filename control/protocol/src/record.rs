//! Sans-I/O cores of the record path, driven alike by the gateway, by control and by tests.

pub mod batch;
pub mod frame;
pub mod hours;
pub mod ledger;
pub mod marks;
pub mod recovery;
pub mod settle;
pub mod shipment;
pub mod slot;

#[cfg(test)]
mod sample;
