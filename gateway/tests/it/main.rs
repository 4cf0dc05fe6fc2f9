//! Integration tests of the gateway's parts against a real Redis and real files.

mod redis_server;
