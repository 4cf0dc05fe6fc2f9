//! Integration tests of the gateway's parts against a real Redis and real files.

mod auth;
mod control_stand_in;
mod directory;
mod freezing_proxy;
mod principals;
mod redis_server;
mod who;
