//! The record log on real files, its service against a real Redis, processes really killed.

mod faults;
mod killed;
mod measure;
mod one_piece;
mod platform;
mod shipping;
